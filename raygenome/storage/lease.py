"""A lease on a prefix in an object store, renewed by heartbeats: object stores have no locks.

Each process that writes, or wants to, keeps an object under `.work/writers/` and rewrites it every
few seconds. If a process stops doing so, it counts as dead, and the next writer removes its object.
All times are those of the store, so that no machine's clock need be right. A process that was only
suspended finds its object gone and stops renewing it; what it still writes never becomes part of
the run that took its place, see `RunDir.require_current`.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from raygenome.errors import OutputError, StorageError
from raygenome.storage.bucket import Bucket

#: Seconds between two heartbeats, and without a heartbeat until a process counts as dead.
_HEARTBEAT_S, _EXPIRES_S = 5.0, 30.0


class _Heartbeat(NamedTuple):
    """The last heartbeat of a process: whether it holds the lease, and the store's time in ns."""

    holds: bool
    at: int


class Lease:
    """The claim of one process on a prefix.

    A process writes its first heartbeat before it looks for others. So of two that start together
    at least one sees the other.

    Args:
        bucket: the place.
        below: prefix of the heartbeats there.
    """

    def __init__(self, bucket: Bucket, below: str) -> None:
        self._bucket = bucket
        self._impatient = bucket.without_retries()
        self._below = below
        self._name = f"{below}/{uuid.uuid4().hex}"
        self._state = b"waits"
        self._ended = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease within the block; a thread renews it.

        Raises:
            OutputError: another process holds it, and lives.
        """
        thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._bucket.put(self._state, self._name)
        try:
            thread.start()
            self._await_others()
            self._state = b"holds"
            self._bucket.put(self._state, self._name)
            yield
        finally:
            self._ended.set()
            thread.join(_HEARTBEAT_S)
            with contextlib.suppress(StorageError):
                self._impatient.remove(self._name)

    def _renew(self) -> None:
        """Send heartbeats until another process removes them, since it took this one for dead."""
        while not self._ended.wait(_HEARTBEAT_S):
            with contextlib.suppress(StorageError):  # the next one may come through
                if not self._impatient.info(self._name).is_file:
                    return
                self._impatient.put(self._state, self._name)

    def _await_others(self) -> None:
        """Return once no other process lives; OutputError as soon as one is seen to live."""
        first: dict[str, _Heartbeat] = {}
        started = time.monotonic()
        while others := self._others():
            waited = time.monotonic() - started > _EXPIRES_S
            mine = self._last(self._name)
            now = mine.at if mine else 0
            for name, last in others.items():
                goes_first = last.holds or name < self._name
                if first.setdefault(name, last) != last and goes_first:
                    raise OutputError(
                        f"{self._bucket.url} is being written by another raygenome",
                        "wait for it or choose another --out",
                    )
                if waited or (now - last.at) / 1e9 > _EXPIRES_S:
                    self._bucket.remove(name)
            time.sleep(min(_HEARTBEAT_S / 5, 1.0))

    def _others(self) -> dict[str, _Heartbeat]:
        names = [name for name in self._bucket.files(self._below) if name != self._name]
        found = {name: self._last(name) for name in names}
        return {name: last for name, last in found.items() if last is not None}

    def _last(self, name: str) -> _Heartbeat | None:
        """Return the last heartbeat of a process, None if it is gone."""
        try:
            holds = self._bucket.read(name) == b"holds"
        except FileNotFoundError:
            return None
        return _Heartbeat(holds, self._bucket.info(name).mtime_ns or 0)
