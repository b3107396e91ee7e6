"""Scorers for the tests of the pool: each shard names the action of its scorer."""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, StorageError


@dataclass(frozen=True)
class Task:
    """A shard: its index, its action and its number of rows."""

    index: int
    act: str = "write"
    rows: int = 1

    def __str__(self) -> str:
        """Return its name for people."""
        return f"{self.index} of the tests"


class FileScorer:
    """Writes one file per shard under `folder`, by rename, after the shard's action."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows_done = 0

    def score_shard(self, task: Task) -> dict[str, Any]:
        began = time.perf_counter()
        attempt = self._attempt(task)
        act, _, once = task.act.partition("-")
        if not once or attempt == 1:
            getattr(self, "_" + act)(task)
        self.rows_done += task.rows if act != "slow" else 0
        temporary = self.folder / f"part-{task.index}.{os.getpid()}.tmp"
        temporary.write_text(str(task.index))
        temporary.replace(self.folder / f"part-{task.index}")
        return {
            "shard": task.index,
            "rows": task.rows,
            "seconds": time.perf_counter() - began,
            "engine_seconds": (time.perf_counter() - began) / 2,
            "pid": os.getpid(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }

    def _attempt(self, task: Task) -> int:
        """Return the number of attempts at `task` so far, this one included, over all processes."""
        with (self.folder / f"attempts-{task.index}").open("a+") as log:
            log.write("x")
            log.flush()
            log.seek(0)
            return len(log.read())

    def _write(self, task: Task) -> None:
        pass

    def _kill(self, task: Task) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _exit(self, task: Task) -> None:
        sys.exit(3)

    def _error(self, task: Task) -> None:
        raise ValueError(f"no good\nin shard {task.index}")

    def _full(self, task: Task) -> None:
        raise StorageError("the disk is full")

    def _unpicklable(self, task: Task) -> None:
        class LocalError(Exception):
            def __init__(self, where: str, lock: object) -> None:
                super().__init__(where)
                self.lock = lock

        raise LocalError("cannot travel", threading.Lock())

    def _hang(self, task: Task) -> None:
        time.sleep(3600)

    def _freeze(self, task: Task) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _gorge(self, task: Task) -> None:
        hoard = []
        while True:
            hoard.append(b"x" * 2**26)
            time.sleep(0.02)

    def _slow(self, task: Task) -> None:
        for _ in range(task.rows):
            time.sleep(0.1)
            self.rows_done += 1


class StubScorer:
    """Does nothing, to time the driver."""

    rows_done = 0

    def score_shard(self, task: Task) -> dict[str, Any]:
        return {"shard": task.index, "rows": task.rows}


def broken_scorer() -> FileScorer:
    raise OSError("weights are not there")


def refused_scorer() -> FileScorer:
    raise DataError("the weights are damaged; import the model again")


def hanging_scorer() -> FileScorer:
    time.sleep(3600)
    raise AssertionError


def dying_scorer() -> FileScorer:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def flaky_scorer(folder: Path) -> FileScorer:
    """Fail at the first construction."""
    with (folder / "births").open("a+") as log:
        log.write("x")
        log.flush()
        log.seek(0)
        births = len(log.read())
    if births == 1:
        raise OSError("not yet")
    return FileScorer(folder)
