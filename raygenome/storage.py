"""Where files lie: a path, or the URL of an object store, s3:// or gs://, reached through pyarrow.

Credentials, region and endpoint are found as the stores' own tools find them (AWS_PROFILE,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, the machine's role, ...). An object appears whole,
when its upload is complete, or not at all; there is no rename and no flush.

(Streams are opened with compression None: pyarrow's default packs and unpacks by a name's ending.)
"""

import contextlib
import copy
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs
from filelock import FileLock

from raygenome.errors import NoInput, StorageError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

T = TypeVar("T")

SCHEMES = ("s3://", "gs://")
#: Attempts at an operation on a store, beyond those that its client makes by itself, and the
#: first pause between them in seconds; it doubles.
_ATTEMPTS, _PAUSE_S = 5, 1.0
_PIECE = 16 << 20

_log = logging.getLogger(__name__)


def is_remote(place: str | Path) -> bool:
    """Return whether `place` is the URL of an object store."""
    return isinstance(place, str) and place.startswith(SCHEMES)


def cache_dir() -> Path:
    """Return where what can be made or fetched again is kept; it need not exist."""
    home = os.environ.get("RAYGENOME_HOME")
    return Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("raygenome"))


class Bucket:
    """A place in an object store, and what lies below it.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX; behind a `?` may stand what pyarrow takes
            there, such as endpoint_override.

    Attributes:
        url: the same, without a slash at the end, and without what is behind the `?`.

    Raises:
        NoInput: the URL names no bucket, or the store cannot be reached with what is configured.
    """

    def __init__(self, url: str) -> None:
        from pyarrow import fs

        try:
            self._fs, path = fs.FileSystem.from_uri(url)
        except (OSError, ValueError) as error:
            raise NoInput(f"{url} cannot be reached: {_first_line(error)}") from error
        self._path = path.rstrip("/")
        self.url = url.partition("?")[0].rstrip("/")
        if not self._path:
            raise NoInput(f"{url} names no bucket; a URL is s3://BUCKET/NAME or gs://BUCKET/NAME")

    def beside(self, ending: str) -> "Bucket":
        """Return the place whose name goes on with `ending`."""
        other = copy.copy(self)
        other._path, other.url = self._path + ending, self.url + ending
        return other

    @property
    def filesystem(self) -> "fs.FileSystem":
        """The pyarrow filesystem that it lies in."""
        return self._fs

    def path(self, name: str = "") -> str:
        """Return the path of `name` in the filesystem: BUCKET/PREFIX/name."""
        return f"{self._path}/{name}" if name else self._path

    def info(self, name: str = "") -> "fs.FileInfo":
        """Return what the store says of an object; its type is NotFound where there is none."""
        return self._try(f"asking for {name}", lambda: self._fs.get_file_info(self.path(name)))

    def files(self, below: str = "") -> dict[str, int]:
        """Return the size in bytes of every object below a prefix, by name."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path(below), recursive=True, allow_not_found=True)
        found = self._try("listing", lambda: self._fs.get_file_info(selector))
        start = len(self._path) + 1
        return {info.path[start:]: info.size for info in found if info.is_file}

    def top(self) -> set[str]:
        """Return the names right below the place, of objects and of what is like a folder."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path, allow_not_found=True)
        found = self._try("listing", lambda: self._fs.get_file_info(selector))
        return {info.base_name for info in found}

    def open(self, name: str = "") -> "pa.NativeFile":
        """Open an object for reads at any place.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._try(f"opening {name}", lambda: self._fs.open_input_file(self.path(name)))

    def stream(self, name: str = "") -> "pa.NativeFile":
        """Open an object to be read from front to back, in few large requests."""
        path = self.path(name)
        return self._try(f"opening {name}", lambda: self._fs.open_input_stream(path, None, _PIECE))

    def read(self, name: str = "") -> bytes:
        """Return the bytes of an object; raise FileNotFoundError where there is none."""

        def read() -> bytes:
            with self._fs.open_input_stream(self.path(name), compression=None) as file:
                return file.read()

        return self._try(f"reading {name}", read)

    def put(self, data: bytes, name: str) -> None:
        """Make an object of these bytes, in place of what has that name."""

        def put() -> None:
            with self._fs.open_output_stream(self.path(name), None) as file:
                file.write(data)

        self._try(f"writing {name}", put)

    def upload(self, file: Path, name: str) -> None:
        """Make an object of a local file, and see that the store has all of it."""

        def upload() -> None:
            # A stream is closed also where writing to it failed, and then an object may show that
            # is cut. None is taken for whole: parts are named by digest, and receipts come last.
            with (
                file.open("rb") as source,
                self._fs.open_output_stream(self.path(name), None) as out,
            ):
                while piece := source.read(_PIECE):
                    out.write(piece)
            stored = self._fs.get_file_info(self.path(name)).size
            if stored != file.stat().st_size:
                raise OSError(f"the store has {stored} bytes of {file.stat().st_size}")

        self._try(f"writing {name}", upload)

    def download(self, name: str, file: Path) -> None:
        """Write an object to a local file, over what is there."""

        def download() -> None:
            stream = self._fs.open_input_stream(self.path(name), None, _PIECE)
            with stream as source, file.open("wb") as out:
                while piece := source.read(_PIECE):
                    out.write(piece)

        self._try(f"reading {name}", download)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._try(f"removing {name}", lambda: self._fs.delete_file(self.path(name)))

    def remove_below(self, name: str) -> None:
        """Remove all objects below a name, and what stands for the folder, if there are any."""
        from pyarrow import fs

        if self.info(name).type == fs.FileType.NotFound and not self.files(name):
            return
        with contextlib.suppress(FileNotFoundError):  # one of them may have gone meanwhile
            self._try(f"removing {name}", lambda: self._fs.delete_dir(self.path(name)))
        for left in self.files(name):
            self.remove(left)

    def _try(self, doing: str, operation: Callable[[], T]) -> T:
        """Do something with the store, again where it fails for what may pass.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: the store refused, or failed again and again.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return operation()
            except FileNotFoundError:
                raise
            except OSError as error:
                said = _first_line(error)
                if attempt + 1 == _ATTEMPTS or not _may_pass(said):
                    raise StorageError(
                        f"{self.url}: {doing.strip()} failed: {said}; "
                        "mend the cause and run the same again"
                    ) from error
                _log.warning("%s: %s failed, trying again: %s", self.url, doing, said)
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError  # the loop returns or raises


def read_bytes(place: str | Path) -> bytes:
    """Return what a small file holds, local or remote; raise FileNotFoundError without one."""
    return Bucket(str(place)).read() if is_remote(place) else Path(place).read_bytes()


def local_copy(url: str, *, beside: tuple[str, ...] = ()) -> Path:
    """Return a copy of an object on this machine, fetched once for all its processes.

    The copy is known by URL, size and time of change, so that an object that was replaced is
    fetched again.

    Args:
        url: of the object.
        beside: endings of further objects, such as ".fai", that come along where there are any.

    Raises:
        NoInput: there is no such object, or the store cannot be reached.
        StorageError: the store or the disk failed.
    """
    bucket = Bucket(url)
    info = bucket.info()
    if not info.is_file:
        raise NoInput(f"there is no object {url}")
    version = f"{bucket.url}\0{info.size}\0{info.mtime_ns}"
    folder = cache_dir() / "objects" / hashlib.sha256(version.encode()).hexdigest()[:32]
    file = folder / bucket.path().rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not file.exists():
            _log.info("fetching %s (%.1f MB)", url, info.size / 1e6)
            for ending in beside:  # first, since the copy stands for all of them
                with contextlib.suppress(FileNotFoundError):
                    _fetch(bucket.beside(ending), file.with_name(file.name + ending))
            _fetch(bucket, file)
    return file


def local_folder(url: str, names: tuple[str, ...]) -> Path:
    """Return a folder on this machine with copies of `names` below a URL; see `local_copy`.

    Raises:
        NoInput: one of them is not there.
    """
    bucket = Bucket(url)
    found = {name: bucket.info(name) for name in names}
    for name, info in found.items():
        if not info.is_file:
            raise NoInput(f"{bucket.url} has no {name}")
    versions = "\0".join(f"{name} {info.size} {info.mtime_ns}" for name, info in found.items())
    key = hashlib.sha256(f"{bucket.url}\0{versions}".encode()).hexdigest()[:32]
    folder = cache_dir() / "objects" / key / bucket.path().rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        for name in names:
            if not (folder / name).exists():
                _fetch(bucket.beside(f"/{name}"), folder / name)
    return folder


def _fetch(bucket: Bucket, file: Path) -> None:
    """Write the object that `bucket` is to `file`, all of it or nothing."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        bucket.download("", temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _may_pass(said: str) -> bool:
    """Return whether a store's complaint is not about rights or names, which stay as they are."""
    lasting = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_", "SIGNATURE", "credentials")
    return not any(word in said for word in lasting)


def _first_line(error: Any) -> str:
    """Return an error of the client without its stack of lines."""
    return " ".join(str(error).split())[:300]
