"""compose.yaml: valid for the tool and by the specification. All its files exist."""

from pathlib import Path

import yaml

from closewatch import ROOT, expect, run
from tools import python_tool, release_build

COMPOSE = ROOT / "deploy/compose.yaml"


def check(report):
    with report.check("compose: docker-compose accepts it"):
        run("docker-compose", "-f", COMPOSE, "config", "--quiet")
    with report.check("compose: the Compose Specification's schema"):
        run(python_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)
    with report.check("compose: all mounted files exist"):
        missing = [str(source) for source in mounts() if not source.exists()]
        expect(not missing, f"missing: {' '.join(missing)}")
    with report.check("compose: promtool accepts the configuration of Prometheus"):
        run("promtool", "check", "config", ROOT / "deploy/compose/prometheus.yaml")
    with report.check("compose: closewatch accepts the command"):
        run(release_build(), *command(), "--help")


def mounts() -> list[Path]:
    """The path on the host of every mount."""
    services = yaml.safe_load(COMPOSE.read_text())["services"].values()
    return [COMPOSE.parent / volume.split(":")[0] for service in services for volume in service.get("volumes", [])]


def command() -> list[str]:
    """The command of the service `closewatch`."""
    return yaml.safe_load(COMPOSE.read_text())["services"]["closewatch"]["command"]
