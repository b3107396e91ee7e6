"""A run in an object store: published by upload, held by a sign of life in place of a lock."""

import contextlib
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raygenome.disk import file_sha256
from raygenome.errors import OutputError, StorageError
from raygenome.results.store import OBJECTS, FolderStore, Store
from raygenome.storage import Bucket, is_remote

if TYPE_CHECKING:
    import pyarrow as pa

#: How often a writer renews its sign, and how long one may be silent before it is taken for dead.
_BEAT_S, _SILENT_S = 5.0, 30.0


class ObjectStore(Store):
    """A run in an object store.

    A store has no locks: who writes puts an object under `.work/writers/` and renews it, and one
    that is not renewed is a dead one's. Times are the store's: no machine's clock need be right.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.
    """

    renames = False

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self.source = url.rstrip("/")
        self.place = self._bucket.url
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._kind = f"{self.working}/kind"

    @property
    def bucket(self) -> Bucket:
        """The place in the store."""
        return self._bucket

    @property
    def scratch(self) -> Path:
        """See `Store`: a folder of this process under TMPDIR."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(
                prefix="raygenome-", ignore_cleanup_errors=True
            )
        return Path(self._scratch.name)

    def close(self) -> None:
        """See `Store`."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def temporary_file(self, name: str) -> Path:
        """See `Store`."""
        return self.scratch / f"{name.rpartition('/')[2]}.{uuid.uuid4().hex}.tmp"

    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """See `Store`."""
        entry = {"bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
        self._bucket.upload(temporary, name)
        temporary.unlink()
        return entry

    def note(self, data: bytes, name: str) -> None:
        """See `Store`."""
        self._bucket.put(data, name)

    def open(self, name: str) -> "pa.NativeFile":
        """See `Store`."""
        return self._bucket.open(name)

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return self._bucket.read(name)

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Store`."""
        return self._bucket.files(below)

    def has(self, name: str) -> bool:
        """See `Store`."""
        return self._bucket.info(name).is_file

    def remove(self, *names: str) -> None:
        """See `Store`."""
        for name in names:
            if self.has(name):
                self._bucket.remove(name)
            else:
                self._bucket.remove_below(name)

    def sql_name(self, name: str) -> str:
        """See `Store`."""
        return OBJECTS + self._bucket.path(name)

    def make(self) -> None:
        """See `Store`: a small object is written and removed."""
        probe = f"{self.working}/probe-{uuid.uuid4().hex}"
        try:
            self._bucket.put(b"", probe)
            self._bucket.remove(probe)
        except StorageError as error:
            raise OutputError(
                f"cannot write to {self.place} ({error}); choose another --out"
            ) from None

    def top(self) -> set[str]:
        """See `Store`."""
        return self._bucket.top()

    def kind_begun(self) -> str | None:
        """See `Store`."""
        try:
            return self._bucket.read(self._kind).decode().strip()
        except FileNotFoundError:
            return None

    def require_space(self, needed: int) -> None:
        """See `Store`: an object store is never full."""

    def unmake(self) -> None:
        """See `Store`: there are no folders."""

    @contextlib.contextmanager
    def lock(self, kind: str) -> Iterator[None]:
        """See `Store`; waits while another's last sign of life is not old enough to tell."""
        writer = _Writer(self._bucket, f"{self.working}/writers")
        try:
            with writer.holding():
                self._bucket.put(f"{kind}\n".encode(), self._kind)
                yield
        finally:
            # Removing an object leaves one that stands for its folder.
            with contextlib.suppress(StorageError):
                if not self._bucket.files(self.working):
                    self._bucket.remove_below(self.working)


class _Sign(NamedTuple):
    """What a writer last said: whether it holds the place, and when, in the store's nanoseconds."""

    holds: bool
    at: int


class _Writer:
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
        self._renew()
        try:
            beats.start()
            self._await_others()
            self._holds = True
            self._renew()
            yield
        finally:
            self._ended.set()
            beats.join()
            with contextlib.suppress(StorageError):
                self._bucket.remove(self._name)

    def _renew(self) -> None:
        self._bucket.put(b"holds" if self._holds else b"waits", self._name)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            with contextlib.suppress(StorageError):  # the next one may come through
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


def open_store(place: str | Path) -> Store:
    """Return the store of a run: an object store for a URL, else a folder."""
    return ObjectStore(str(place)) if is_remote(place) else FolderStore(Path(place))
