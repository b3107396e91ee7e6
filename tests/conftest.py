"""Fixtures shared by all tests; a fixture is a short noun, a maker of files is in builders.py."""

import os
from collections.abc import Iterator
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Give torch one thread: more would cost more than small nets."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return the answers of `head_pays`, as they come: True is a dense head."""
    from raygenome.engines.incremental import head

    answers: list[bool] = []
    plain = head.head_pays

    def recorded(*args: object) -> bool:
        answers.append(plain(*args))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(head, "head_pays", recorded)
    return answers
