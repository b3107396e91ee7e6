"""The descendants of a process, from Linux's /proc, so that a test can kill one of them."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process; `started` (clock ticks since boot) differs for a later one with the same pid."""

    pid: int
    parent: int
    started: int
    command: str

    @property
    def role(self) -> str:
        """Its role in Ray: gcs, raylet, worker, or other."""
        words = self.command.split("\0")
        program = os.path.basename(words[0])
        if program in ("gcs_server", "raylet"):
            return program.removesuffix("_server")
        # A worker renames itself after its actor.
        return "worker" if words[0].startswith("ray::ScorerActor") else "other"

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the process `pid`; None if it does not run."""
        return _read(pid)

    def is_alive(self) -> bool:
        """Return whether it runs; a zombie does not."""
        found = _read(self.pid)
        return found is not None and found.started == self.started

    def kill(self) -> None:
        """Kill it with SIGKILL, if it still runs."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def below(pid: int) -> list[Process]:
    """Return all processes that descend from `pid`, parents first."""
    everyone = [_read(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    children: dict[int, list[Process]] = {}
    for process in everyone:
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found += children.get(process.pid, ())
    return found


def wait_for_end(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Return those that still run after at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if process.is_alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [process for process in left if process.is_alive()]
    return left


def _read(pid: int) -> Process | None:
    """Return the process `pid`, or None if it does not run."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = status.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[19]), command)
