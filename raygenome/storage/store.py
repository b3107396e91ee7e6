"""Where the files of a run lie: a folder, or a place in an object store; the same verbs for both.

Files are known by names relative to the run, with slashes. A file is written to local disk first
and then published, whole or not at all: in a folder by a rename, in an object store by an upload,
which shows nothing until it is complete. In neither is a half-written file ever under a final name.
"""

import contextlib
import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygenome.errors import StorageError
from raygenome.storage.files import file_sha256, publish
from raygenome.storage.folder import OutputFolder

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE = 1 << 20
#: What DuckDB's name of an object begins with.
OBJECTS = "raygenome://"


class Store(ABC):
    """The files of a run.

    Attributes:
        source: the run as the user named it, a path or a URL: what opens it again.
        place: the same for people, without options of a URL.
        renames: whether a published file replaces what has its name in one step for readers that
            have it open; where not, a name is never used for two contents.
        working: the folder of names, below the run, of what only an unfinished one needs.
    """

    source: str
    place: str
    renames: bool
    working = ".work"

    @abstractmethod
    def temporary_file(self, name: str) -> Path:
        """Return a local path of its own to write a file to that is to be published as `name`."""

    @abstractmethod
    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """Give a finished temporary file its name; return its {bytes, sha256}."""

    @abstractmethod
    def note(self, data: bytes, name: str) -> None:
        """Write a file that a power cut may take, but that is never seen half written."""

    @abstractmethod
    def open(self, name: str) -> "pa.NativeFile":
        """Open a file for reads at any place; FileNotFoundError where there is none."""

    @abstractmethod
    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below a folder, by name; empty without one."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether there is a file of that name."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files, and folders with all that is below them, where they are there."""

    def remove_working(self) -> None:
        """Remove what only an unfinished run needs; its folder goes at the latest with the lock."""
        self.remove(self.working)

    @abstractmethod
    def sql_name(self, name: str) -> str:
        """Return the absolute name by which DuckDB opens a file; see `duck.connect`."""

    @abstractmethod
    def make(self) -> None:
        """See that the place can be written to, and make its folder; OutputError if it cannot."""

    @abstractmethod
    def unmake(self) -> None:
        """Remove the folder that `make` made, if nothing is in it."""

    @abstractmethod
    def lock(self, kind: str) -> contextlib.AbstractContextManager[None]:
        """Hold the place for this process, as a `kind`; OutputError where another one lives."""

    @abstractmethod
    def top(self) -> set[str]:
        """Return the names right below the place, of files and folders; empty without one."""

    @abstractmethod
    def kind_begun(self) -> str | None:
        """Return what was begun here, None where nothing says so."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A local folder for what comes and goes while a run is made; it exists."""

    @abstractmethod
    def close(self) -> None:
        """Remove what is on local disk and not the run's."""

    @abstractmethod
    def require_space(self, needed: int, aside: int) -> None:
        """Refuse to start what cannot be held, where that can be known; StorageError.

        Args:
            needed: bytes that the run takes at its largest, with its working files.
            aside: bytes of these that are on local disk only, while it is made.
        """

    def holds(self, name: str) -> bool:
        """Return whether a name, such as one that a file gives us, stays below the place."""
        return ".." not in name.split("/") and not name.startswith("/")

    def shown(self, name: str) -> str:
        """Return how messages call a file."""
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError where there is none."""
        with self.open(name) as file:
            return file.read()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes, in hex."""
        found = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read(_PIECE):
                found.update(piece)
        return found.hexdigest()

    def publish_text(self, text: str, name: str) -> dict[str, Any]:
        """Write a text file, all of it or nothing; return its {bytes, sha256}."""
        temporary = self.temporary_file(name)
        temporary.write_text(text, encoding="utf-8")
        return self.publish(temporary, name)

    def publish_json(self, value: object, name: str) -> dict[str, Any]:
        """Write `value` as JSON, all of it or nothing; return its {bytes, sha256}."""
        return self.publish_text(json.dumps(value, indent=1) + "\n", name)

    def publish_copy(self, source: str, name: str) -> dict[str, Any]:
        """Copy the file `source` of the run to `name`, all of it or nothing."""
        temporary = self.temporary_file(name)
        with self.open(source) as file, temporary.open("wb") as out:
            while piece := file.read(_PIECE):
                out.write(piece)
        return self.publish(temporary, name)


class FolderStore(Store):
    """A run in a folder, of this machine or shared by all of a cluster.

    Args:
        path: the folder.
    """

    renames = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = self.place = str(path)
        self._folder = OutputFolder(path)
        self._made = False

    def temporary_file(self, name: str) -> Path:
        """See `Store`."""
        return self._folder.temporary_file(self.path / name)

    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """See `Store`; what is published survives a power cut."""
        return publish(temporary, self.path / name)

    def note(self, data: bytes, name: str) -> None:
        """See `Store`."""
        self._folder.note(data, self.path / name)

    def open(self, name: str) -> "pa.NativeFile":
        """See `Store`."""
        import pyarrow as pa

        return pa.OSFile(str(self.path / name), "rb")

    def digest(self, name: str) -> str:
        """See `Store`."""
        return file_sha256(self.path / name)

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Store`."""
        root = self.path / below
        return {
            path.relative_to(self.path).as_posix(): path.stat().st_size
            for path in root.rglob("*")
            if path.is_file()
        }

    def has(self, name: str) -> bool:
        """See `Store`."""
        return (self.path / name).is_file()

    def holds(self, name: str) -> bool:
        """See `Store`; a link may lead elsewhere."""
        return (self.path / name).resolve().is_relative_to(self.path.resolve())

    def remove(self, *names: str) -> None:
        """See `Store`."""
        for name in names:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def sql_name(self, name: str) -> str:
        """See `Store`."""
        return str(self.path.absolute() / name)

    def make(self) -> None:
        """See `Store`."""
        self._folder.require_folder()
        self._made = not self.path.exists()
        self._folder.make()

    def unmake(self) -> None:
        """See `Store`."""
        if self._made:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    @contextlib.contextmanager
    def lock(self, kind: str) -> Iterator[None]:
        """See `Store`; a dead process holds nothing."""
        self._folder.KIND = kind
        try:
            with self._folder.lock():
                yield
        finally:
            with contextlib.suppress(OSError):  # it is not empty, where the run is to go on
                self._folder.work.rmdir()

    def remove_working(self) -> None:
        """See `Store`; on NFS the file of a lock that is held stays, so that its folder does."""
        for entry in list(self._folder.work.iterdir()):
            self.remove(f"{self.working}/{entry.name}")
        with contextlib.suppress(OSError):
            self._folder.work.rmdir()

    def top(self) -> set[str]:
        """See `Store`."""
        return {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()

    def kind_begun(self) -> str | None:
        """See `Store`."""
        return self._folder.kind_begun()

    @property
    def scratch(self) -> Path:
        """See `Store`: beside the run's other working files, as large as they may be."""
        self._folder.temporary.mkdir(parents=True, exist_ok=True)
        return self._folder.temporary

    def close(self) -> None:
        """See `Store`: all that is on disk is the run's, and swept by the next to lock it."""

    def require_space(self, needed: int, aside: int) -> None:  # noqa: ARG002 - is in `needed`
        """See `Store`."""
        require_room(self.path, needed, "choose another --out, or use --effects top")


def require_room(folder: Path, needed: int, instead: str) -> None:
    """Refuse what a disk cannot hold; `instead` is what helps beside freeing some space.

    Raises:
        StorageError: less than `needed` bytes are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has {_size(free)} free and the run needs about {_size(needed)} there; "
            f"free some space, or {instead}"
        )


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
