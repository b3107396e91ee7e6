"""What the driver of Ray Train workers decides by itself; no Ray is started."""

import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raygenome.errors import NoInput, StorageError, UsageError
from raygenome.progress.bars import NoProgress
from raygenome.training import workers
from raygenome.training.run_dir import TrainDir

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_workers_that_ray_will_never_start_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there: dict[str, Any] = {"CPU": 8.0, "GPU": 1.0}
    monkeypatch.setattr(workers.ray, "cluster_resources", lambda: there)
    workers._check_room(1, "cuda", private=True)
    workers._check_room(8, "cpu", private=True)
    with pytest.raises(UsageError, match="2 workers need a GPU each, and Ray has 1; ask for fewer"):
        workers._check_room(2, "cuda", private=True)
    assert caplog.records == []
    del there["GPU"]
    with caplog.at_level(logging.WARNING):
        workers._check_room(2, "cuda", private=False)
    (record,) = caplog.records
    assert "2 workers need a GPU each, and Ray has 0; waiting" in record.getMessage()


def test_a_private_ray_that_is_too_small_is_refused_whatever_ray_address_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would be waited for, and a private Ray never grows."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(workers, "connected", lambda **_: nullcontext(True))
    monkeypatch.setattr(workers, "ClusterHealth", lambda **_: nullcontext())
    monkeypatch.setattr(workers.ray, "cluster_resources", lambda: {"GPU": 1.0})
    task: Any = SimpleNamespace(device="cuda")
    with pytest.raises(UsageError, match="2 workers need a GPU each, and Ray has 1; ask for fewer"):
        workers.train_on_ray(task, TrainDir(tmp_path), workers=(2, 2), progress=NoProgress())


@pytest.mark.parametrize(("kind", "raised"), [("NoInput", NoInput), ("OSError", StorageError)])
def test_a_failure_is_raised_by_the_driver_that_it_is_meant_for(
    tmp_path: Path, kind: str, raised: type[Exception]
) -> None:
    run = TrainDir(tmp_path)
    workers._raise_failure(run, "this")
    said = {"kind": kind, "message": "the disk has gone", "attempt": "this"}
    run.publish_json(said, run.failure)
    workers._raise_failure(run, "another")
    with pytest.raises(raised, match=r"^the disk has gone$"):
        workers._raise_failure(run, "this")


def test_the_last_note_is_of_the_end_however_soon_it_comes(tmp_path: Path) -> None:
    """Notes are a second apart, and a run must not stand at a half when it is over."""
    run = TrainDir(tmp_path)
    run.progress.parent.mkdir(parents=True, exist_ok=True)
    worker: Any = SimpleNamespace(
        run_dir=run,
        rank=0,
        recipe=SimpleNamespace(epochs=2, batch_size=10),
        steps=3,
        state=SimpleNamespace(step=0),
    )
    tell = workers._Notes(worker)
    for done in (10, 20, 60):
        tell(done, "")
    assert run.read(run.progress)["done"] == 60
