"""What a person sees of long work: a bar on a terminal, a line every 30 seconds elsewhere."""

import time
from collections.abc import Callable
from typing import Protocol, TextIO

_INTERVAL_S = 30.0


class Progress(Protocol):
    """Receives the progress of a stage."""

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Start a phase of `total` items, of which `done` were done before; `unit` names them."""

    def update(self, done: int, note: str = "") -> None:
        """Set how many items of the phase are done; `note` is shown beside, such as a loss."""

    def end(self) -> None:
        """End the phase."""


class NoProgress:
    """Shows nothing: the default of the Python API."""

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Do nothing."""

    def update(self, done: int, note: str = "") -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class LineProgress:
    """Writes a line every 30 seconds, for logs."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = _INTERVAL_S,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._every = every
        self._what, self._unit, self._total = "", "", 0
        self._first = 0
        self._start = self._last_line = 0.0

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Start a phase; the first line comes after 30 seconds."""
        self._what, self._unit, self._total, self._first = what, unit, total, done
        self._start = self._last_line = self._clock()

    def update(self, done: int, note: str = "") -> None:
        """Write a line if it is time."""
        now = self._clock()
        if now - self._last_line < self._every:
            return
        self._last_line = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = duration((self._total - done) / rate) if rate > 0 else "unknown"
        percent = 100 * done / max(self._total, 1)
        print(
            f"{self._what}: {done:,} of {self._total:,} {self._unit} ({percent:.1f} %), "
            f"{rate:,.0f} {self._unit}/s, {left} left{', ' if note else ''}{note}",
            file=self._stream,
            flush=True,
        )

    def end(self) -> None:
        """Write nothing; the summary follows."""


class BarProgress:
    """Draws a bar with the rate and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._unit, self._first, self._start = "", 0, 0.0

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Draw a bar, filled as far as the work is done already."""
        self._bar.start()
        self._task = self._bar.add_task(what, total=total, completed=done, rate="-", note="")
        self._unit, self._first, self._start = unit, done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Move the bar."""
        rate = (done - self._first) / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, completed=done, rate=f"{rate:,.0f} {self._unit}/s", note=note)

    def end(self) -> None:
        """Remove the bar."""
        self._bar.remove_task(self._task)
        self._bar.stop()


class BothProgress:
    """Passes every call on to two others."""

    def __init__(self, first: Progress, second: Progress) -> None:
        self._both = (first, second)

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        """Start the phase in both."""
        for each in self._both:
            each.begin(what, total, done, unit=unit)

    def update(self, done: int, note: str = "") -> None:
        """Update both."""
        for each in self._both:
            each.update(done, note)

    def end(self) -> None:
        """End the phase in both."""
        for each in self._both:
            each.end()


def duration(seconds: float) -> str:
    """Return `seconds` as people write it: 42 s, 3 min 5 s, 7 h 20 min, 3 d 4 h."""
    for unit, size, below, small in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {below}"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
