"""A run in an object store: published by upload, held by a sign of life in place of a lock."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygenome.errors import OutputError, StorageError
from raygenome.storage.bucket import Bucket, StoreError, is_remote
from raygenome.storage.files import file_sha256
from raygenome.storage.lease import Writer
from raygenome.storage.store import OBJECTS, FolderStore, Store, require_room
from raygenome.storage.tempdirs import Scratch

if TYPE_CHECKING:
    import pyarrow as pa

#: How long closing waits for the last note to be written.
_NOTE_S = 10.0


class ObjectStore(Store):
    """A run in an object store.

    Notes are written by a thread, the last one only where they come faster: a store that does not
    answer holds up no run.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.
    """

    renames = False

    def __init__(self, url: str) -> None:
        self._bucket = Bucket(url)
        self.source = url.rstrip("/")
        self.place = self._bucket.url
        self._scratch: Scratch | None = None
        self._notes: _Notes | None = None
        self._kind = f"{self.working}/kind"

    @property
    def bucket(self) -> Bucket:
        """The place in the store."""
        return self._bucket

    @property
    def scratch(self) -> Path:
        """See `Store`: a folder of this process under TMPDIR."""
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.path

    def close(self) -> None:
        """See `Store`."""
        self._end_notes()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _end_notes(self) -> None:
        if self._notes is not None:
            self._notes.close()
            self._notes = None

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
        if self._notes is None:
            self._notes = _Notes(self._bucket.hasty())
        self._notes.put(data, name)

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
        """See `Store`; a note that is still to be written is no more to come afterwards."""
        self._end_notes()
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
            self._tidy()
        except StoreError as error:
            raise OutputError(
                f"cannot write to {self.place}: {error.why}; choose another --out"
            ) from error

    def top(self) -> set[str]:
        """See `Store`."""
        return self._bucket.top()

    def kind_begun(self) -> str | None:
        """See `Store`."""
        try:
            return self._bucket.read(self._kind).decode().strip()
        except FileNotFoundError:
            return None

    def require_space(self, needed: int, aside: int) -> None:  # noqa: ARG002 - it is never full
        """See `Store`: what is put aside lies under TMPDIR."""
        require_room(self.scratch, aside, "set TMPDIR to another folder")

    def unmake(self) -> None:
        """See `Store`: there are no folders."""

    @contextlib.contextmanager
    def lock(self, kind: str) -> Iterator[None]:
        """See `Store`; waits while another's last sign of life is not old enough to tell."""
        writer = Writer(self._bucket, f"{self.working}/writers")
        try:
            with writer.holding():
                self._bucket.put(f"{kind}\n".encode(), self._kind)
                yield
        finally:
            self._tidy()

    def _tidy(self) -> None:
        """Remove the object that stands for an empty folder: removing one leaves such a one."""
        hasty = self._bucket.hasty()
        with contextlib.suppress(StorageError):
            if not hasty.files(self.working):
                hasty.remove_below(self.working)


class _Notes:
    """Writes notes in a thread, each over the one before; of what waits, the last."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._waiting: dict[str, bytes] = {}
        self._more = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._write, name="notes", daemon=True)
        self._thread.start()

    def put(self, data: bytes, name: str) -> None:
        """Have a note written."""
        with self._more:
            self._waiting[name] = data
            self._more.notify()

    def close(self) -> None:
        """Wait for what is still to be written, but not for ever."""
        with self._more:
            self._over = True
            self._more.notify()
        self._thread.join(_NOTE_S)

    def _write(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    return
                name, data = self._waiting.popitem()
            with contextlib.suppress(StorageError):  # a later one may come through
                self._bucket.put(data, name)


def open_store(place: str | Path) -> Store:
    """Return the store of a run: an object store for a URL, else a folder."""
    return ObjectStore(str(place)) if is_remote(place) else FolderStore(Path(place))
