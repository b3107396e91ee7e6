"""Who writes to a place in an object store: signs of life, where there are no locks.

Who writes puts an object under `.work/writers/` and renews it; one that is not renewed is a dead
one's, and is removed by the next. Times are the store's: no machine's clock need be right. A writer
that was only asleep finds its sign gone; what it still does is no part of the run that took its
place, see `RunDir.require_current`.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from raygenome.errors import OutputError, StorageError
from raygenome.storage.bucket import Bucket

#: How often a writer renews its sign, and how long one may be silent before it is taken for dead.
_BEAT_S, _SILENT_S = 5.0, 30.0


class _Sign(NamedTuple):
    """What a writer last said: whether it holds the place, and when, in the store's nanoseconds."""

    holds: bool
    at: int


class Writer:
    """A process that writes, or would like to, known by an object that it keeps renewing.

    Each puts its sign before it looks for others, so that of two that start together at least one
    sees the other.
    """

    def __init__(self, bucket: Bucket, below: str) -> None:
        self._bucket = bucket
        self._below = below
        self._name = f"{below}/{uuid.uuid4().hex}"
        self._holds = False
        self._ended = threading.Event()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the place within the block, renewing the sign in a thread."""
        beats = threading.Thread(target=self._beat, name="sign-of-life", daemon=True)
        self._bucket.put(b"waits", self._name)
        try:
            beats.start()
            self._await_others()
            self._holds = True
            self._bucket.put(b"holds", self._name)
            yield
        finally:
            self._ended.set()
            beats.join(_BEAT_S)
            with contextlib.suppress(StorageError):
                self._bucket.hasty().remove(self._name)

    def _renew(self) -> None:
        self._bucket.hasty().put(b"holds" if self._holds else b"waits", self._name)

    def _beat(self) -> None:
        """Renew the sign, until another has taken it away: then this process was held for dead."""
        while not self._ended.wait(_BEAT_S):
            with contextlib.suppress(StorageError):  # the next one may come through
                if not self._bucket.hasty().info(self._name).is_file:
                    return
                self._renew()

    def _await_others(self) -> None:
        """Return once no other writer lives; OutputError as soon as one shows that it does."""
        first: dict[str, _Sign] = {}
        began = time.monotonic()
        while others := self._others():
            silent = time.monotonic() - began > _SILENT_S
            mine = self._sign(self._name)
            now = mine.at if mine else 0
            for name, sign in others.items():
                goes_first = sign.holds or name < self._name
                if first.setdefault(name, sign) != sign and goes_first:
                    raise OutputError(
                        f"{self._bucket.url} is being written by another raygenome; "
                        "wait for it or choose another --out"
                    )
                if silent or (now - sign.at) / 1e9 > _SILENT_S:
                    self._bucket.remove(name)
            time.sleep(min(_BEAT_S / 5, 1.0))

    def _others(self) -> dict[str, _Sign]:
        names = [name for name in self._bucket.files(self._below) if name != self._name]
        signs = {name: self._sign(name) for name in names}
        return {name: sign for name, sign in signs.items() if sign is not None}

    def _sign(self, name: str) -> _Sign | None:
        """Return the last sign of a writer, None if it has gone meanwhile."""
        try:
            holds = self._bucket.read(name) == b"holds"
        except FileNotFoundError:
            return None
        return _Sign(holds, self._bucket.info(name).mtime_ns or 0)
