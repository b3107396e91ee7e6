"""Fixtures shared by all tests; a fixture is a short noun, a maker of files is in builders.py."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a raygenome home of its own, so that none reads or fills the developer's."""
    path = tmp_path / "raygenome-home"
    monkeypatch.setenv("RAYGENOME_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data that RAYGENOME_REAL_DATA names, or skip the test."""
    folder = os.environ.get("RAYGENOME_REAL_DATA")
    if not folder:
        pytest.skip("RAYGENOME_REAL_DATA is not set")
    return Path(folder)
