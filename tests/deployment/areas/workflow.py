"""The GitHub workflow: its schema, and its call of ./tests/run."""

from closewatch import ROOT, expect, run
from tools import python_tool

WORKFLOW = ROOT / ".github/workflows/ci.yaml"


def check(report):
    with report.check("workflow: GitHub's schema"):
        run(python_tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", WORKFLOW)
    with report.check("workflow: calls ./tests/run"):
        expect("run: ./tests/run\n" in WORKFLOW.read_text(), f"{WORKFLOW} does not call ./tests/run")
