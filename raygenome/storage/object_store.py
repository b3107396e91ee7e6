"""An output in an object store: published by uploads, and held by a lease instead of a lock."""

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygenome.errors import OutputError, StorageError
from raygenome.storage.bucket import Bucket, StoreError, is_remote
from raygenome.storage.files import file_sha256
from raygenome.storage.lease import Lease
from raygenome.storage.store import OBJECTS, Kind, LocalStore, Store, require_room
from raygenome.storage.tempdirs import TempDir

if TYPE_CHECKING:
    import pyarrow as pa

#: Seconds that closing waits for the last note to be written.
_NOTE_S = 10.0


class ObjectStore(Store):
    """An output in an object store.

    A thread writes the notes, so that a store that does not answer never delays the work. If notes
    come faster than it can write, it writes only the newest.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.
    """

    renames = False

    def __init__(self, url: str) -> None:
        self.bucket = Bucket(url)
        self.source = url.rstrip("/")
        self.place = self.bucket.url
        self._temp_dir: TempDir | None = None
        self._notes: _NoteWriter | None = None

    @property
    def absolute(self) -> str:
        """See `Store`."""
        return self.source

    @property
    def temp_dir(self) -> Path:
        """See `Store`: a folder of this process under TMPDIR."""
        if self._temp_dir is None:
            self._temp_dir = TempDir()
        return self._temp_dir.path

    def close(self) -> None:
        """See `Store`."""
        self._flush_notes()
        if self._temp_dir is not None:
            self._temp_dir.close()
            self._temp_dir = None

    def _flush_notes(self) -> None:
        if self._notes is not None:
            self._notes.close()
            self._notes = None

    def temporary_file(self, name: str) -> Path:
        """See `Store`."""
        return self.temp_dir / f"{name.rpartition('/')[2]}.{uuid.uuid4().hex}.tmp"

    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """See `Store`."""
        entry = {"bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
        self.bucket.upload(temporary, name)
        temporary.unlink()
        return entry

    def publish_folder(self, temporary: Path, name: str, *, last: str) -> None:
        """See `Store`."""
        if self.exists(f"{name}/{last}"):
            self.bucket.remove(f"{name}/{last}")
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == last):
            self.publish(file, f"{name}/{file.name}")
        shutil.rmtree(temporary)

    def note(self, data: bytes, name: str) -> None:
        """See `Store`."""
        if self._notes is None:
            self._notes = _NoteWriter(self.bucket.without_retries())
        self._notes.put(data, name)

    def open(self, name: str) -> "pa.NativeFile":
        """See `Store`."""
        return self.bucket.open(name)

    def fetch(self, name: str) -> Path:
        """See `Store`."""
        copy = self.temporary_file(name)
        self.bucket.download(name, copy)
        return copy

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return self.bucket.read(name)

    def listdir(self) -> set[str]:
        """See `Store`."""
        return self.bucket.listdir()

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Store`."""
        return self.bucket.files(below)

    def exists(self, name: str) -> bool:
        """See `Store`."""
        return self.bucket.info(name).is_file

    def remove(self, *names: str) -> None:
        """See `Store`; notes that are waiting are written first, so that none comes afterwards."""
        self._flush_notes()
        for name in names:
            if self.exists(name):
                self.bucket.remove(name)
            else:
                self.bucket.remove_below(name)

    def sql_name(self, name: str) -> str:
        """See `Store`."""
        return OBJECTS + self.bucket.path(name)

    def create(self) -> None:
        """See `Store`: writes a small object and removes it."""
        probe = f"{self.working}/tmp/probe-{uuid.uuid4().hex}"
        try:
            self.bucket.put(b"", probe)
            self.bucket.remove(probe)
            self._remove_folder_objects()
        except StoreError as error:
            raise OutputError(
                f"cannot write to {self.place}: {error.why}", "choose another --out"
            ) from error

    def remove_if_created(self) -> None:
        """See `Store`: an object store has no folders."""

    @contextlib.contextmanager
    def lock(self, kind: Kind) -> Iterator[None]:
        """See `Store`; waits while the lease of another process may still be renewed."""
        try:
            with Lease(self.bucket, f"{self.working}/writers").held():
                self.bucket.put(f"{kind.name}\n".encode(), f"{self.working}/kind")
                yield
        finally:
            self._remove_folder_objects()

    def require_space(self, needed: int, aside: int) -> None:  # noqa: ARG002 - it is never full
        """See `Store`: only TMPDIR can be full."""
        require_room(self.temp_dir, aside, "set TMPDIR to another folder")

    def _remove_folder_objects(self) -> None:
        """Remove the objects that stand for empty folders: pyarrow makes one when it removes."""
        bucket = self.bucket.without_retries()
        with contextlib.suppress(StorageError):
            if not bucket.files(self.working):
                bucket.remove_below(self.working)


class _NoteWriter:
    """A thread that writes notes; of the notes of one name that wait, it writes the newest."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._waiting: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="notes", daemon=True)
        self._thread.start()

    def put(self, data: bytes, name: str) -> None:
        """Have a note written."""
        with self._changed:
            self._waiting[name] = data
            self._changed.notify()

    def close(self) -> None:
        """Wait until all notes are written, but not longer than `_NOTE_S`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_NOTE_S)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                name, data = self._waiting.popitem()
            with contextlib.suppress(StorageError):  # a later note may come through
                self._bucket.put(data, name)


def open_store(place: str | Path) -> Store:
    """Return the store at a place: an object store for a URL, else a folder."""
    return ObjectStore(str(place)) if is_remote(place) else LocalStore(Path(place))
