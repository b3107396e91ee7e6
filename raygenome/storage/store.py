"""Where an output lies: a folder or a prefix in an object store, behind the same operations.

Files are known by names relative to the output, with slashes. A file is written to local disk first
and then published, whole or not at all: by a rename in a folder, by an upload in an object store,
which shows an object only when it is complete. Neither ever has a half-written file under its final
name. What only an unfinished output needs lies in `.work/`.

A command writes its output like this, wherever it lies:

    DATASET = Kind("dataset", finished="dataset.json", started=".work/identity.json")

    store = open_store(out)  # of `object_store`: a path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX
    store.claim(DATASET, resume=resume, overwrite=overwrite)  # OutputError; removes nothing
    try:
        with store.lock(DATASET):  # one writer at a time
            if overwrite:
                store.remove("dataset.json", ".work/parts")  # the mark of completeness first
            names = sorted(store.sizes(".work/parts"))
            receipts = [store.read_json(name, do="...") for name in names if name.endswith(".json")]
            done = [each for each in receipts if store.is_whole(each["file"])]  # what to resume
            ...
            name = ".work/parts/train-00007.rows"
            temporary = store.temporary_file(name)  # a local path
            array.tofile(temporary)
            file = {"path": name, **store.publish(temporary, name)}  # with bytes and sha256
            store.publish_json({"rows": 9, "file": file}, ".work/parts/train-00007.json")
            ...
            with store.open(name) as part:  # a pyarrow file; `fetch` gives a local path instead
                part.read()
            store.publish_folder(model, "model", last="model.json")
            store.publish_json(manifest, "dataset.json")  # the last file: now it is finished
            store.remove_working()
    finally:
        store.close()  # removes temporary files from local disk

In an object store a file should not get a second content under the same name while someone may
read it: see `Store.renames`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from raygenome.errors import DataError, OutputError, StorageError
from raygenome.storage.files import file_sha256, publish, publish_folder, restore_folders

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 20
#: Prefix of the names by which DuckDB opens objects.
OBJECTS = "raygenome://"
#: Names below `.work/` that hold nothing worth keeping.
_TRANSIENT = {"kind", "lock", "tmp", "writers"}


@dataclass(frozen=True)
class Kind:
    """What a command makes at a place, and how `Store.claim` recognises it.

    Attributes:
        name: such as "training run"; kept in `.work/kind`, so that no command takes the output of
            another command, or a folder of the user's, for its own.
        finished: name of the file that is written last.
        started: name of the file that exists as soon as there is something to resume.
        proof: names that prove this kind where `.work/` is gone, as after the end of a run.
        replace: the option that replaces an earlier output.
    """

    name: str
    finished: str
    started: str
    proof: tuple[str, ...] = ()
    replace: str = "--overwrite"


class Store(ABC):
    """The files of one output.

    Attributes:
        source: the place as the user named it, a path or a URL: `open_store` opens it again.
        place: the same for messages, without the options of a URL.
        renames: whether files are published by a rename, so that a new content never disturbs a
            reader of the old one. Where it is false, no name should be used for two contents.
        working: the folder of files that only an unfinished output needs.
    """

    source: str
    place: str
    renames: bool
    working = ".work"

    # What a folder and an object store do differently.

    @property
    @abstractmethod
    def absolute(self) -> str:
        """The path or URL by which other processes open this place with `open_store`."""

    @property
    @abstractmethod
    def temp_dir(self) -> Path:
        """A local folder for temporary files, removed by `close` or by the next writer."""

    @abstractmethod
    def temporary_file(self, name: str) -> Path:
        """Return a new local path at which to write the file that becomes `name`."""

    @abstractmethod
    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """Give a finished temporary file its name, durably; return its {bytes, sha256}."""

    @abstractmethod
    def publish_folder(self, temporary: Path, name: str, *, last: str) -> None:
        """Make a finished local folder of files the folder `name`, in place of an earlier one.

        Args:
            temporary: the folder, which is gone afterwards.
            name: its name here.
            last: the file whose presence tells a reader that the folder is whole. In an object
                store it is the first to go and the last to come.
        """

    @abstractmethod
    def note(self, data: bytes, name: str) -> None:
        """Write a file that a power cut may remove, but that is never seen half written."""

    @abstractmethod
    def open(self, name: str) -> "pa.NativeFile":
        """Open a file for random reads; FileNotFoundError if there is none."""

    @abstractmethod
    def fetch(self, name: str) -> Path:
        """Return a local path to read a file from: the file itself, or a copy in `temp_dir`."""

    @abstractmethod
    def listdir(self) -> set[str]:
        """Return the names directly below the place, of files and folders."""

    @abstractmethod
    def sizes(self, below: str = "") -> dict[str, int]:
        """Return {name: bytes} of every file below a folder; empty if there is no such folder."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files and whole folders, in this order; a name that is not there is no error."""

    @abstractmethod
    def sql_name(self, name: str) -> str:
        """Return the absolute name by which DuckDB opens a file; see `results.duck`."""

    @abstractmethod
    def create(self) -> None:
        """Make the folder, and check that it can be written to.

        Raises:
            OutputError: it cannot.
        """

    @abstractmethod
    def remove_if_created(self) -> None:
        """Remove the folder that `create` made, if it is empty."""

    @abstractmethod
    def lock(self, kind: Kind) -> contextlib.AbstractContextManager[None]:
        """Hold the place as its only writer within the block, and record its kind.

        Raises:
            OutputError: another process holds it.
        """

    @abstractmethod
    def close(self) -> None:
        """Remove temporary files from local disk and write what is left to write."""

    @abstractmethod
    def require_space(self, needed: int, aside: int) -> None:
        """Refuse to start a run that will not fit, as far as that can be known.

        Args:
            needed: bytes that the run takes at its largest, with its working files.
            aside: bytes of these that stay on local disk while the run goes on.

        Raises:
            StorageError: it will not fit.
        """

    # What is the same for both.

    def claim(self, kind: Kind, *, resume: bool, overwrite: bool) -> None:
        """Make sure that this command may write here; removes nothing.

        Raises:
            OutputError: an output of this kind is here and neither `resume` nor `overwrite` was
                given; or something else is here, which must never be removed; or the place cannot
                be written to.
        """
        if not self._is_free():
            names = self.listdir()
            found = self.kind()
            if found != kind.name and (found is not None or not names & set(kind.proof)):
                raise OutputError(
                    f"{self.place} is not empty and holds no {kind.name}", "choose another --out"
                )
            finished = kind.finished in names
            if (finished or self.exists(kind.started)) and not (resume or overwrite):
                raise OutputError(
                    f"{self.place} holds {'a finished' if finished else 'an unfinished'} "
                    f"{kind.name}",
                    f"add --resume or {kind.replace}, or choose another --out",
                )
        self.create()

    def _is_free(self) -> bool:
        """Return whether the place is empty, or has only the files of a process that died early."""
        if self.listdir() - {self.working}:
            return False
        return all(name.split("/")[1] in _TRANSIENT for name in self.sizes(self.working))

    def kind(self) -> str | None:
        """Return the name of the kind that was started here; None if nothing records it."""
        try:
            return self.read(f"{self.working}/kind").decode().strip()
        except (OSError, UnicodeDecodeError):
            return None

    def remove_working(self) -> None:
        """Remove the files that only an unfinished output needs."""
        self.remove(self.working)

    def is_inside(self, name: str) -> bool:
        """Return whether a name, which may come from a damaged file, stays below the place."""
        return ".." not in name.split("/") and not name.startswith("/")

    def shown(self, name: str) -> str:
        """Return the name of a file for messages."""
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError if there is none."""
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str, *, do: str) -> Any:
        """Return the value in a JSON file, None if there is no such file.

        Raises:
            DataError: it is damaged; `do` is what the user can do then.
        """
        try:
            return json.loads(self.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{self.shown(name)} is damaged ({error})", do) from None

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes, in hex."""
        found = hashlib.sha256()
        with self.open(name) as file:
            while block := file.read(_BLOCK):
                found.update(block)
        return found.hexdigest()

    def is_whole(self, file: Mapping[str, Any], sizes: Mapping[str, int] | None = None) -> bool:
        """Return whether a file fits its receipt, {path, bytes, sha256}.

        In a folder every byte is read, since a result built from a damaged part would be wrong
        without any sign of it. An object store checks its bytes itself, so the size is enough.

        Args:
            file: the entry of the receipt.
            sizes: of the files here where they are listed already, see `sizes`.
        """
        name = file["path"]
        there = self.sizes(name.rpartition("/")[0]) if sizes is None else sizes
        if there.get(name) != file["bytes"]:
            return False
        return not self.renames or self.digest(name) == file["sha256"]

    def publish_text(self, text: str, name: str) -> dict[str, Any]:
        """Publish a text file; return its {bytes, sha256}."""
        temporary = self.temporary_file(name)
        temporary.write_text(text, encoding="utf-8")
        return self.publish(temporary, name)

    def publish_json(self, value: object, name: str) -> dict[str, Any]:
        """Publish `value` as JSON; return its {bytes, sha256}."""
        return self.publish_text(json.dumps(value, indent=1) + "\n", name)

    def publish_copy(self, source: str, name: str) -> dict[str, Any]:
        """Publish a copy of the file `source`, which lies here, as `name`."""
        temporary = self.temporary_file(name)
        with self.open(source) as file, temporary.open("wb") as out:
            while block := file.read(_BLOCK):
                out.write(block)
        return self.publish(temporary, name)

    def note_json(self, value: object, name: str) -> None:
        """Write `value` as JSON; see `note`."""
        self.note(json.dumps(value).encode(), name)


class LocalStore(Store):
    """An output in a folder, of this machine or shared by all machines of a cluster.

    Args:
        path: the folder.
    """

    renames = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = self.place = str(path)
        self._work = path / self.working
        self._created = False

    @property
    def absolute(self) -> str:
        """See `Store`."""
        return str(self.path.resolve())

    @property
    def temp_dir(self) -> Path:
        """See `Store`: on the same disk as the output, since files are renamed from here."""
        folder = self._work / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def temporary_file(self, name: str) -> Path:
        """See `Store`."""
        return self.temp_dir / f"{name.rpartition('/')[2]}.{uuid.uuid4().hex}.tmp"

    def publish(self, temporary: Path, name: str) -> dict[str, Any]:
        """See `Store`."""
        return publish(temporary, self.path / name)

    def publish_folder(self, temporary: Path, name: str, *, last: str) -> None:  # noqa: ARG002
        """See `Store`: one rename."""
        publish_folder(temporary, self.path / name)

    def note(self, data: bytes, name: str) -> None:
        """See `Store`."""
        temporary = self.temporary_file(name)
        temporary.write_bytes(data)
        os.replace(temporary, self.path / name)

    def open(self, name: str) -> "pa.NativeFile":
        """See `Store`."""
        import pyarrow as pa

        return pa.OSFile(str(self.path / name), "rb")

    def fetch(self, name: str) -> Path:
        """See `Store`."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return (self.path / name).read_bytes()

    def digest(self, name: str) -> str:
        """See `Store`."""
        return file_sha256(self.path / name)

    def listdir(self) -> set[str]:
        """See `Store`."""
        return {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Store`."""
        return {
            path.relative_to(self.path).as_posix(): path.stat().st_size
            for path in (self.path / below).rglob("*")
            if path.is_file()
        }

    def exists(self, name: str) -> bool:
        """See `Store`."""
        return (self.path / name).is_file()

    def is_inside(self, name: str) -> bool:
        """See `Store`; follows links, which may lead elsewhere."""
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

    def create(self) -> None:
        """See `Store`."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file", "--out needs a directory")
        self._created = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.temporary_file("probe")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.path} ({error.strerror})", "choose another --out"
            ) from None

    def remove_if_created(self) -> None:
        """See `Store`."""
        if self._created:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    @contextlib.contextmanager
    def lock(self, kind: Kind) -> Iterator[None]:
        """See `Store`; the lock of a dead process is free.

        The next holder of the lock first removes or completes the unfinished work of a dead writer.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._work / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"{self.path} is being written by another raygenome",
                "wait for it or choose another --out",
            ) from None
        try:
            shutil.rmtree(self._work / "tmp", ignore_errors=True)
            restore_folders(self.path)
            if self.kind() != kind.name:  # half of it would be another's
                self.publish_text(f"{kind.name}\n", f"{self.working}/kind")
            yield
        finally:
            lock.release()
            with contextlib.suppress(OSError):  # not empty: the output is unfinished
                self._work.rmdir()

    def remove_working(self) -> None:
        """See `Store`; on NFS the file of a held lock stays, and its folder with it, for now."""
        for entry in list(self._work.iterdir()):
            self.remove(f"{self.working}/{entry.name}")
        with contextlib.suppress(OSError):
            self._work.rmdir()

    def close(self) -> None:
        """See `Store`: nothing, since the next to take the lock sweeps `temp_dir`."""

    def require_space(self, needed: int, aside: int) -> None:  # noqa: ARG002 - part of `needed`
        """See `Store`."""
        require_room(self.path, needed, "choose another --out, or use --effects top")


def require_room(folder: Path, needed: int, instead: str) -> None:
    """Refuse to write more than a disk can hold; `instead` is other advice than freeing space.

    Raises:
        StorageError: less than `needed` bytes are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has {_size(free)} free and the run needs about {_size(needed)} there",
            f"free some space, or {instead}",
        )


def _size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
