"""Where the repository's folders are, for tests that run or read what lies in them."""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
JOBS = ROOT / "jobs"
CONFIGS = ROOT / "configs"
#: What a subprocess needs on its path to import what tests import.
PYTHON_PATHS = [ROOT, TESTS, JOBS]


def python_environment() -> dict[str, str]:
    """Return the environment of a subprocess that imports what tests import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PYTHON_PATHS))}
