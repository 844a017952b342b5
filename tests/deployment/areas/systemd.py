"""The units: as systemd-analyze judges them. How they run is checked with the package that carries them."""

import shutil

from closewatch import ROOT, run
from tools import fresh_directory

UNITS = ROOT / "deploy/systemd"

# 0 is best, 10 worst. What a network service cannot do without comes to 1.2.
MOST_EXPOSURE = 15


def check(report):
    units = fresh_directory("units")
    for unit in UNITS.iterdir():
        shutil.copy(unit, units)
    service = units / "closewatch.service"
    # The program that is named has to be there for this, and its documentation need not.
    service.write_text(service.read_text().replace("/usr/bin/closewatch", "/bin/true"))
    with report.check("systemd: the units are valid"):
        run("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *sorted(units.iterdir()))
    with report.check("systemd: the service is confined"):
        run("systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", service)
