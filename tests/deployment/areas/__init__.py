"""The parts of deploy/: one module each, with `check(report)`."""
