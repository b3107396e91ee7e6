"""A run's progress.json: the progress of a run, for programs that watch it from outside."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator

from raygenome.errors import RaygenomeError

FORMAT = 1

_log = logging.getLogger(__name__)


class ProgressFile:
    """Writes progress.json; has the methods of `Progress`.

    Args:
        command: "score" or "train".
        write: writes the file. Its errors do not stop the run; the first one is logged.
        every: seconds between two writes.

    Attributes:
        shards: a function that returns how many shards are done, and how many there are; None as
            long as that is unknown.
    """

    def __init__(self, command: str, write: Callable[[bytes], None], *, every: float = 2.0) -> None:
        self.shards: Callable[[], tuple[int, int]] | None = None
        self._command = command
        self._write = write
        self._every = every
        self._unit, self._total, self._first, self._done = "variants", 0, 0, 0
        self._start = self._last_write = time.monotonic()
        self._ended: float | None = self._start  # None during a phase
        self._state = ""
        self._warned = False

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Start a phase; `what` is also the state in the file."""
        self._unit, self._total, self._first, self._done = unit, total, done, done
        self._start, self._ended = time.monotonic(), None
        self.state(what)

    def update(self, done: int, note: str = "") -> None:  # noqa: ARG002 - a note is for people
        """Write the file if it is time."""
        self._done = done
        if time.monotonic() - self._last_write >= self._every:
            self.state(self._state)

    def end(self) -> None:
        """Write the final state of the phase; its rate does not change any more."""
        self._end()
        self.state(self._state)

    def state(self, state: str, error: str | None = None) -> None:
        """Write the file now, with this state and the error, if any."""
        self._state = state
        self._last_write = time.monotonic()
        try:
            self._write(json.dumps(self._document(error), indent=1).encode() + b"\n")
        except (OSError, RaygenomeError) as problem:
            if not self._warned:
                _log.warning("progress.json cannot be written: %s", problem)
            self._warned = True

    def _end(self) -> None:
        if self._ended is None:
            self._ended = time.monotonic()

    def _document(self, error: str | None) -> dict[str, object]:
        within = self._ended is None
        until = time.monotonic() if self._ended is None else self._ended
        rate = (self._done - self._first) / max(until - self._start, 1e-9)
        left = (self._total - self._done) / rate if within and rate > 0 else None
        shards_done, shards = self.shards() if self.shards else (None, None)
        return {
            "format": FORMAT,
            "command": self._command,
            "state": self._state,
            "unit": self._unit,
            "done": self._done,
            "total": self._total,
            "shards_done": shards_done,
            "shards": shards,
            "per_second": round(rate, 3),
            "seconds_left": None if left is None else round(left, 1),
            "updated": round(time.time(), 3),
            "error": error,
            "job": os.environ.get("RAYGENOME_JOB"),
        }

    @contextlib.contextmanager
    def record_end(self, keep: Callable[[], bool]) -> Iterator[None]:
        """Write how the block ended: "stopped" by a signal, or "failed"; nothing after success.

        Args:
            keep: returns whether there is a run that the file should describe.
        """
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(Exception):  # `error` matters more, and may be a signal
                if keep():
                    self._end()
                    failed = isinstance(error, Exception)
                    self.state(*(("failed", str(error) or repr(error)) if failed else ("stopped",)))
            raise
