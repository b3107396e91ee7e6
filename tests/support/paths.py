"""The paths of the repository's folders, for tests that run or read their files."""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
JOBS = ROOT / "jobs"
CONFIGS = ROOT / "configs"
#: The import path of a subprocess that imports the same modules as tests.
PYTHON_PATHS = [ROOT, TESTS, JOBS]


def python_environment() -> dict[str, str]:
    """Return the environment of a subprocess that imports the same modules as tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PYTHON_PATHS))}
