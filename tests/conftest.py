"""Fixtures shared by all tests; a fixture is a short noun, a maker of files is in builders.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The files that take longest, longest first. They start first, so that none is left to run alone.
LONGEST = (
    "test_training_ray.py",
    "test_engine_incremental.py",
    "test_bench_train.py",
    "test_resume.py",
    "test_kill_campaign.py",
    "test_io_faults.py",
    "test_pool_process.py",
    "test_object_store.py",
    "test_submit_head.py",
    "test_job_files.py",
    "test_lost_head.py",
    "test_bench.py",
    "test_churn.py",
    "test_training_kill.py",
    "test_training_store.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, then those with Ray tests, which mostly wait."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}

    def rank(item: pytest.Item) -> tuple[int, str]:
        name = item.path.name
        place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return place + (item.path not in with_ray and name not in LONGEST), str(item.path)

    items.sort(key=rank)


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
