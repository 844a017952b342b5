"""Checks everything under deploy/ with the tools of its users. The last line is `N passed, N failed`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from areas import compose, guide, helm, image, kubernetes, package, systemd, workflow
from closewatch import Failure, Report

AREAS = {
    "workflow": workflow,
    "compose": compose,
    "kubernetes": kubernetes,
    "helm": helm,
    "systemd": systemd,
    "guide": guide,
    "image": image,
    "package": package,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in AREAS]
    if unknown:
        print(f"unknown area: {' '.join(unknown)}; known: {' '.join(AREAS)}", file=sys.stderr)
        return 2
    report = Report()
    for name in names or AREAS:
        check_area(name, report)
    return report.finish()


def check_area(name: str, report: Report):
    area = AREAS[name]
    if getattr(area, "NEEDS_ROOT", False) and os.geteuid() != 0:
        # This is a failure, because a passing run means that the image ran and the package started.
        with report.check(f"{name}: all of it"):
            raise Failure("needs root: containers, namespaces and dpkg")
        return
    area.check(report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
