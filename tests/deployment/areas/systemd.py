"""The units, checked by systemd-analyze. The checks of the package run them."""

import shutil

from closewatch import ROOT, run
from tools import fresh_directory

UNITS = ROOT / "deploy/systemd"

# 0 is best, 100 worst. The necessary rights of a network program come to 12.
MOST_EXPOSURE = 15


def check(report):
    units = fresh_directory("units")
    for unit in UNITS.iterdir():
        shutil.copy(unit, units)
    unit = units / "closewatch.service"
    # The program in the unit must exist for this check.
    unit.write_text(unit.read_text().replace("/usr/bin/closewatch", "/bin/true"))
    with report.check("systemd: the units are valid"):
        run("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *sorted(units.iterdir()))
    with report.check("systemd: the unit is confined"):
        run("systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", unit)
