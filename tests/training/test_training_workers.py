"""Decisions of the driver of Ray Train workers; no Ray is started."""

import logging
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from support.small_training import Told

from raygenome.errors import DataError, NoInput, RaygenomeError, StorageError, UsageError
from raygenome.storage.bucket import StoreError
from raygenome.training import workers
from raygenome.training.reports import Position, Reports

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_workers_that_ray_will_never_start_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there: dict[str, Any] = {"CPU": 8.0, "GPU": 1.0}
    monkeypatch.setattr(workers.ray, "cluster_resources", lambda: there)
    workers._check_room(1, "cuda", private=True)
    workers._check_room(8, "cpu", private=True)
    with pytest.raises(UsageError, match=r"2 workers need one GPU each, .* has 1; ask for"):
        workers._check_room(2, "cuda", private=True)
    assert caplog.records == []
    del there["GPU"]
    with caplog.at_level(logging.WARNING):
        workers._check_room(2, "cuda", private=False)
    (record,) = caplog.records
    assert "2 workers need one GPU each, and Ray has 0; waiting" in record.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        DataError("the loss is nan", "lower optimizer.lr"),
        NoInput("there is no file x"),
        StoreError("s3://b/x cannot be read", "no answer", "look"),
    ],
)
def test_an_error_reaches_the_driver_as_it_was_raised(error: RaygenomeError) -> None:
    reports = Reports()
    assert not reports.failed()
    reports.fail(pickle.loads(pickle.dumps(error)))
    reports.fail(DataError("a later one"))
    assert reports.failed()
    desk = workers._Desk(None, Told())
    with pytest.raises(type(error)) as caught:
        desk.show(*reports.newest())
    assert (caught.value.found, caught.value.do) == (error.found, error.do)
    assert caught.value.exit_code == error.exit_code


def test_a_failing_disk_says_what_to_do() -> None:
    error = workers._for_the_user(OSError(28, "No space left on device"))
    assert isinstance(error, StorageError)
    assert str(error).endswith("No space left on device; fix the cause and run again with --resume")


def test_the_driver_shows_the_newest_position() -> None:
    progress = Told()
    desk = workers._Desk(None, progress)
    with desk:
        desk.show(None, None)
        desk.show(Position(30, 60, 20, "loss 1"), None)
        desk.show(Position(60, 60, 20, ""), None)
    assert progress.calls == [
        ("begin", "training", 60, 20, "samples"),
        ("update", 30, "loss 1"),
        ("update", 60, ""),
        ("end",),
    ]


def test_the_end_is_reported_however_soon_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are a second apart, and a finished run must not be shown as half done."""
    reports = Reports()
    remote = SimpleNamespace(progress=SimpleNamespace(remote=reports.progress))
    monkeypatch.setattr(workers.ray, "get", lambda value: value)
    report = workers._Throttled(remote, 0)
    for done in (10, 20, 60):
        report(Position(done, 60, 0, ""))
        if done == 20:
            assert reports.newest()[0] == Position(10, 60, 0, "")
    assert reports.newest()[0] == Position(60, 60, 0, "")
    workers._Throttled(remote, 1)(Position(0, 60, 0, ""))
    assert reports.newest()[0] == Position(60, 60, 0, "")
