"""Where files lie: a path, or the URL of an object store, s3:// or gs://, reached through pyarrow.

Credentials, region and endpoint are found as the stores' own tools find them (AWS_PROFILE,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, the machine's role, ...). An object appears whole,
when its upload is complete, or not at all; there is no rename and no flush.

(Streams are opened with compression None: pyarrow's default packs and unpacks by a name's ending.)
"""

import contextlib
import copy
import logging
import re
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from raygenome.errors import StorageError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

T = TypeVar("T")

SCHEMES = ("s3://", "gs://")
#: Attempts at an operation on a store, beyond those that its client makes by itself, and the
#: first pause between them in seconds; it doubles.
_ATTEMPTS, _PAUSE_S = 5, 1.0
_PIECE = 16 << 20

_OTHER_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
#: What clients say in many words.
_PLAIN = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "ACCESS_DENIED": "access is denied with the credentials that are set",
    "NETWORK_CONNECTION": "the store cannot be reached",
}

_log = logging.getLogger(__name__)


class StoreError(StorageError):
    """A store refused or failed; `why` is what it said, in one line."""

    def __init__(self, found: str, why: str, do: str = "") -> None:
        super().__init__(found, do)
        self.why = why

    def __reduce__(self) -> tuple[type["StoreError"], tuple[str, str, str]]:
        """Pickle all three fields."""
        return type(self), (self.found, self.why, self.do)


def is_remote(place: str | Path) -> bool:
    """Return whether `place` is the URL of an object store.

    Raises:
        UsageError: it is a URL of another kind, or one that a Path has taken a slash from.
    """
    text = str(place)
    if text.startswith(SCHEMES):
        return True
    if _OTHER_URL.match(text):
        raise UsageError(
            f"{text} is no path and no URL of a store that is known; write s3://BUCKET/NAME or "
            "gs://BUCKET/NAME, in Python as a string (./ in front makes it a path)"
        )
    return False


class Bucket:
    """A place in an object store, and what lies below it.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, each letter as it is in the store; behind a
            `?` may stand what pyarrow takes there, such as endpoint_override.

    Attributes:
        url: the same, without a slash at the end, and without what is behind the `?`.

    Raises:
        UsageError: the URL names no bucket, holds a password, or has a part that no name can have.
        StoreError: the store cannot be reached with what is configured.
    """

    def __init__(self, url: str) -> None:
        from pyarrow import fs

        scheme, user, self._path, options = _taken_apart(url)
        self.url = f"{scheme}://{self._path}"
        self._attempts = _ATTEMPTS
        uri = f"{scheme}://{user}{quote(self._path)}{options}"
        try:
            self._fs, _ = fs.FileSystem.from_uri(uri)
        except (OSError, ValueError) as error:
            why = _plainly(error)
            raise StoreError(f"{self.url} cannot be reached: {why}", why) from error

    def beside(self, ending: str) -> "Bucket":
        """Return the place whose name goes on with `ending`."""
        other = copy.copy(self)
        other._path, other.url = self._path + ending, self.url + ending
        return other

    def hasty(self) -> "Bucket":
        """Return the same place, where what fails is not tried again: for what may be left out."""
        other = copy.copy(self)
        other._attempts = 1
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

    def has_bucket(self) -> bool:
        """Return whether the bucket is there; also where that may not be asked."""
        with contextlib.suppress(OSError):
            return self._fs.get_file_info(self._path.partition("/")[0]).type.name != "NotFound"
        return True

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
        """Write an object to a local file, over what is there.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the store failed.
            StorageError: the disk did.
        """

        def download() -> None:
            if out.tell():  # what came before it failed
                out.seek(0)
                out.truncate()
            with self._fs.open_input_stream(self.path(name), None, _PIECE) as source:
                while piece := source.read(_PIECE):
                    _append(out, piece)

        with file.open("wb", buffering=0) as out:
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
            StoreError: the store refused, or failed again and again.
        """
        doing = doing.strip()
        for attempt in range(self._attempts):
            try:
                return operation()
            except FileNotFoundError:
                raise
            except OSError as error:
                why = _plainly(error)
                if attempt + 1 == self._attempts or not _may_pass(str(error)):
                    raise StoreError(
                        f"{self.url}: {doing} failed: {why}; mend the cause and run the same again",
                        why,
                    ) from error
                _log.warning("%s: %s failed, trying again: %s", self.url, doing, why)
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError  # the loop returns or raises


def read_bytes(place: str | Path) -> bytes:
    """Return what a small file holds, local or remote; raise FileNotFoundError without one."""
    return Bucket(str(place)).read() if is_remote(place) else Path(place).read_bytes()


def _append(out: FileIO, piece: bytes) -> None:
    """Write to the disk, whose failures are not the store's.

    Raises:
        StorageError: it is full, or failed.
    """
    try:
        rest = memoryview(piece)
        while rest:
            rest = rest[out.write(rest) :]
    except OSError as error:
        raise StorageError(
            f"{Path(str(out.name)).parent}: {error.strerror}; free some space there, or set "
            "RAYGENOME_HOME or TMPDIR to another folder"
        ) from error


def _taken_apart(url: str) -> tuple[str, str, str, str]:
    """Return the scheme, USER@ or nothing, BUCKET/PREFIX, and ?OPTIONS or nothing of a URL.

    Raises:
        UsageError: see `Bucket`.
    """
    place, mark, options = url.partition("?")
    scheme, _, path = place.partition("://")
    user, at, bucket = path.partition("/")[0].rpartition("@")
    if ":" in user:
        raise UsageError(
            f"a URL of {scheme}://{bucket} holds a password, which would be written into logs and "
            "files; set it in the environment, as AWS_SECRET_ACCESS_KEY"
        )
    path = path[len(user + at) :].rstrip("/")
    if not bucket:
        raise UsageError(f"{url} names no bucket; write s3://BUCKET/NAME or gs://BUCKET/NAME")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise UsageError(f"{url} has an empty name, or . or .., between two slashes; write it out")
    return scheme, user + at, path, mark + options


def _may_pass(said: str) -> bool:
    """Return whether a store's complaint is not about rights or names, which stay as they are."""
    lasting = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_", "SIGNATURE", "credentials")
    return not any(word in said for word in lasting)


def _plainly(error: Exception) -> str:
    """Return what a client says of a failure, in one line and as far as it helps."""
    said = " ".join(str(error).split())
    for word, plain in _PLAIN.items():
        if word in said:
            return plain
    return said.partition(" (Request ID")[0][:200]


def require_local(place: str | Path, option: str) -> None:
    """Refuse a URL, also one that a Path has taken a slash from, where only a path will do.

    Raises:
        UsageError: it is one; `option` says of what.
    """
    try:
        remote = is_remote(place)
    except UsageError:
        remote = True
    if remote:
        raise UsageError(
            f"{option} is {place}, a URL; object stores are for `score`, here it has to be a path: "
            "on a cluster, one that all its machines share"
        )
