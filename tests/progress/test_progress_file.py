"""progress.json: its content, when it is written, and that it never stops a run."""

import json
import logging
from typing import Any

import pytest

from raygenome.errors import StorageError
from raygenome.progress.bars import BothProgress, NoProgress
from raygenome.progress.file import ProgressFile


class Clock:
    """A clock that is set by hand, in place of the module's."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("raygenome.progress.file.time", clock)
    return clock


class Written(list[dict[str, Any]]):
    def __call__(self, data: bytes) -> None:
        self.append(json.loads(data))


def test_a_run_from_its_plan_to_its_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYGENOME_JOB", "raygenome-score-1")
    written = Written()
    file = ProgressFile("score", written, every=2.0)
    both = BothProgress(NoProgress(), file)
    file.state("planning")
    file.shards = lambda: (3, 8)
    both.begin("scoring", 1000, 400)
    clock.now += 1
    both.update(500)  # too soon
    clock.now += 1
    both.update(600, "a note")
    both.end()
    file.state("done")
    assert [each["state"] for each in written] == ["planning", *["scoring"] * 3, "done"]
    assert written[0] == {
        "format": 1,
        "command": "score",
        "state": "planning",
        "unit": "variants",
        "done": 0,
        "total": 0,
        "shards_done": None,
        "shards": None,
        "per_second": 0.0,
        "seconds_left": None,
        "updated": 1e9 + 100,
        "error": None,
        "job": "raygenome-score-1",
    }
    assert (written[2]["done"], written[2]["total"]) == (600, 1000)
    assert (written[2]["shards_done"], written[2]["shards"]) == (3, 8)
    assert (written[2]["per_second"], written[2]["seconds_left"]) == (100.0, 4.0)


def test_after_a_phase_the_rate_stays_and_no_time_is_left(clock: Clock) -> None:
    written = Written()
    file = ProgressFile("score", written)
    file.begin("scoring", 1000)
    clock.now += 2
    file.update(200)
    file.end()
    clock.now += 98
    file.state("ranking")
    file.end()
    assert [each["per_second"] for each in written] == [0.0, 100.0, 100.0, 100.0, 100.0]
    assert [each["seconds_left"] for each in written] == [None, 8.0, None, None, None]
    file.begin("training", 10)
    clock.now += 1
    file.update(5)
    file.state("training")
    with pytest.raises(ZeroDivisionError), file.record_end(keep=lambda: True):
        raise ZeroDivisionError
    assert [each["per_second"] for each in written[-2:]] == [5.0, 5.0]
    assert [each["seconds_left"] for each in written[-2:]] == [1.0, None]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (ValueError("no such thing"), "failed", "no such thing"),
        (ValueError(), "failed", "ValueError()"),
        (KeyboardInterrupt(), "stopped", None),
    ],
)
def test_the_end_is_recorded(error: BaseException, state: str, message: str | None) -> None:
    written = Written()
    file = ProgressFile("train", written)
    for keep in (True, False):
        with pytest.raises(type(error)), file.record_end(keep=lambda keep=keep: keep):  # type: ignore[misc]
            raise error
    assert [(each["state"], each["error"]) for each in written] == [(state, message)]


@pytest.mark.parametrize("fails", ["keep", "write"])
def test_an_error_while_recording_the_end_hides_nothing(fails: str) -> None:
    def fail(*_: object) -> bool:
        raise StorageError("the store is gone") if fails == "keep" else RuntimeError("a bug")

    file = ProgressFile("score", fail if fails == "write" else Written())  # type: ignore[arg-type]
    keep = fail if fails == "keep" else lambda: True
    with pytest.raises(KeyboardInterrupt), file.record_end(keep=keep):
        raise KeyboardInterrupt


def test_a_file_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.WARNING)
    file = ProgressFile("score", full, every=0.0)
    file.begin("scoring", 10)
    for done in range(10):
        file.update(done)
    assert caplog.text.count("No space left") == 1
