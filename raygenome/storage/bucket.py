"""Objects in S3 and Google Cloud Storage, by their URL (s3:// or gs://), through pyarrow.

Credentials, region and endpoint are found as the stores' own tools find them (AWS_PROFILE,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, the machine's role, ...). An object appears whole,
when its upload is complete, or not at all; there is no rename and no flush.

Streams are opened with compression None: by default pyarrow compresses and decompresses by the
ending of a name.
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
#: How often an operation is tried, besides the retries of the client itself, and the first pause
#: between two tries in seconds; each further pause is twice as long.
_ATTEMPTS, _PAUSE_S = 5, 1.0
_BLOCK = 16 << 20

_OTHER_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
#: Short explanations for long error messages of the clients.
_PLAIN = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "ACCESS_DENIED": "access is denied with the credentials that are set",
    "NETWORK_CONNECTION": "the store cannot be reached",
}

_log = logging.getLogger(__name__)


class StoreError(StorageError):
    """A store refused or failed; `why` is its own explanation, in one line."""

    def __init__(self, found: str, why: str, do: str = "") -> None:
        super().__init__(found, do)
        self.why = why

    def __reduce__(self) -> tuple[type["StoreError"], tuple[str, str, str]]:
        """Pickle all three fields."""
        return type(self), (self.found, self.why, self.do)


def is_remote(place: str | Path) -> bool:
    """Return whether `place` is the URL of an object store.

    Raises:
        UsageError: it is another kind of URL, or a URL that lost a slash because it became a Path.
    """
    text = str(place)
    if text.startswith(SCHEMES):
        return True
    if _OTHER_URL.match(text):
        raise UsageError(
            f"{text} is neither a path nor a URL of a supported object store",
            "write s3://BUCKET/NAME or gs://BUCKET/NAME, in Python as a string; for a file of "
            "this name put ./ in front",
        )
    return False


class Bucket:
    """A prefix in an object store, and the objects below it.

    Args:
        url: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, not URL-encoded; options of pyarrow, such as
            endpoint_override, may follow a `?`.

    Attributes:
        url: the same, without a slash at the end and without the options.

    Raises:
        UsageError: the URL names no bucket, holds a password, or has an impossible part.
        StoreError: the store cannot be reached with the present configuration.
    """

    def __init__(self, url: str) -> None:
        from pyarrow import fs

        scheme, user, self._path, options = _parse_url(url)
        self.url = f"{scheme}://{self._path}"
        self._attempts = _ATTEMPTS
        uri = f"{scheme}://{user}{quote(self._path)}{options}"
        try:
            self._fs, _ = fs.FileSystem.from_uri(uri)
        except (OSError, ValueError) as error:
            why = _explain(error)
            raise StoreError(f"{self.url} cannot be reached: {why}", why) from error

    def sibling(self, ending: str) -> "Bucket":
        """Return the place whose URL is this one's with `ending` appended, such as ".fai"."""
        other = copy.copy(self)
        other._path, other.url = self._path + ending, self.url + ending
        return other

    def without_retries(self) -> "Bucket":
        """Return the same place for operations that may fail, and are not tried again."""
        other = copy.copy(self)
        other._attempts = 1
        return other

    @property
    def filesystem(self) -> "fs.FileSystem":
        """The pyarrow filesystem of the store."""
        return self._fs

    def path(self, name: str = "") -> str:
        """Return the path of `name` in the filesystem: BUCKET/PREFIX/name."""
        return f"{self._path}/{name}" if name else self._path

    def info(self, name: str = "") -> "fs.FileInfo":
        """Return size and time of an object; its type is NotFound if there is none."""
        return self._try(f"asking for {name}", lambda: self._fs.get_file_info(self.path(name)))

    def files(self, below: str = "") -> dict[str, int]:
        """Return the size in bytes of every object below a prefix, by name."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path(below), recursive=True, allow_not_found=True)
        found = self._try("listing", lambda: self._fs.get_file_info(selector))
        start = len(self._path) + 1
        return {info.path[start:]: info.size for info in found if info.is_file}

    def listdir(self) -> set[str]:
        """Return the names directly below the place, of objects and of common prefixes."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path, allow_not_found=True)
        found = self._try("listing", lambda: self._fs.get_file_info(selector))
        return {info.base_name for info in found}

    def has_bucket(self) -> bool:
        """Return whether the bucket exists; also True where we have no right to know."""
        with contextlib.suppress(OSError):
            return self._fs.get_file_info(self._path.partition("/")[0]).type.name != "NotFound"
        return True

    def open(self, name: str = "") -> "pa.NativeFile":
        """Open an object for random reads.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self._try(f"opening {name}", lambda: self._fs.open_input_file(self.path(name)))

    def stream(self, name: str = "") -> "pa.NativeFile":
        """Open an object for one read from front to back, in few large requests."""
        path = self.path(name)
        return self._try(f"opening {name}", lambda: self._fs.open_input_stream(path, None, _BLOCK))

    def read(self, name: str = "") -> bytes:
        """Return the bytes of an object; FileNotFoundError if there is none."""

        def read() -> bytes:
            with self._fs.open_input_stream(self.path(name), compression=None) as file:
                return file.read()

        return self._try(f"reading {name}", read)

    def put(self, data: bytes, name: str) -> None:
        """Write an object, in place of an earlier one of that name."""

        def put() -> None:
            with self._fs.open_output_stream(self.path(name), None) as file:
                file.write(data)

        self._try(f"writing {name}", put)

    def upload(self, file: Path, name: str) -> None:
        """Write an object from a local file, and check that the store has all of it."""

        def upload() -> None:
            # A stream is closed even if writing to it failed, and then a truncated object may
            # appear. None counts as whole: parts are named by digest, and receipts come last.
            with (
                file.open("rb") as source,
                self._fs.open_output_stream(self.path(name), None) as out,
            ):
                while block := source.read(_BLOCK):
                    out.write(block)
            stored = self._fs.get_file_info(self.path(name)).size
            if stored != file.stat().st_size:
                raise OSError(f"the store has {stored} bytes of {file.stat().st_size}")

        self._try(f"writing {name}", upload)

    def download(self, name: str, file: Path) -> None:
        """Write an object to a local file, in place of an earlier file.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the store failed.
            StorageError: the disk failed.
        """

        def download() -> None:
            if out.tell():  # left by an earlier try
                out.seek(0)
                out.truncate()
            with self._fs.open_input_stream(self.path(name), None, _BLOCK) as source:
                while block := source.read(_BLOCK):
                    _append(out, block)

        with file.open("wb", buffering=0) as out:
            self._try(f"reading {name}", download)

    def remove(self, name: str) -> None:
        """Remove an object, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._try(f"removing {name}", lambda: self._fs.delete_file(self.path(name)))

    def remove_below(self, name: str) -> None:
        """Remove all objects below a name, and the object that stands for the folder."""
        from pyarrow import fs

        if self.info(name).type == fs.FileType.NotFound and not self.files(name):
            return
        with contextlib.suppress(FileNotFoundError):  # another process removed one
            self._try(f"removing {name}", lambda: self._fs.delete_dir(self.path(name)))
        for left in self.files(name):
            self.remove(left)

    def _try(self, doing: str, operation: Callable[[], T]) -> T:
        """Run an operation on the store, again if it fails for a reason that may pass.

        Args:
            doing: the operation in words, for messages.
            operation: what to run.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the store refused, or failed too often.
        """
        doing = doing.strip()
        for attempt in range(self._attempts):
            try:
                return operation()
            except FileNotFoundError:
                raise
            except OSError as error:
                why = _explain(error)
                if attempt + 1 == self._attempts or not _is_transient(str(error)):
                    raise StoreError(
                        f"{self.url}: {doing} failed: {why}",
                        why,
                        "fix the cause and run the same command again",
                    ) from error
                _log.warning("%s: %s failed, trying again: %s", self.url, doing, why)
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError  # the loop returns or raises


def read_bytes(place: str | Path) -> bytes:
    """Return the bytes of a small file, local or remote; FileNotFoundError if there is none."""
    return Bucket(str(place)).read() if is_remote(place) else Path(place).read_bytes()


def _append(out: FileIO, block: bytes) -> None:
    """Append to a local file; its failures are not those of the object store.

    Raises:
        StorageError: the disk is full, or failed.
    """
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[out.write(rest) :]
    except OSError as error:
        raise StorageError(
            f"{Path(str(out.name)).parent}: {error.strerror}",
            "free some space there, or set RAYGENOME_HOME or TMPDIR to another folder",
        ) from error


def _parse_url(url: str) -> tuple[str, str, str, str]:
    """Return the scheme, "USER@" or "", BUCKET/PREFIX, and "?OPTIONS" or "" of a URL.

    Raises:
        UsageError: see `Bucket`.
    """
    place, mark, options = url.partition("?")
    scheme, _, path = place.partition("://")
    user, at, bucket = path.partition("/")[0].rpartition("@")
    if ":" in user:
        raise UsageError(
            f"a URL of {scheme}://{bucket} holds a password, which would be written into logs and "
            "files",
            "set it in the environment, as AWS_SECRET_ACCESS_KEY",
        )
    path = path[len(user + at) :].rstrip("/")
    if not bucket:
        raise UsageError(f"{url} names no bucket", "write s3://BUCKET/NAME or gs://BUCKET/NAME")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise UsageError(
            f"{url} has an empty name, or . or .., between two slashes", "write the full URL"
        )
    return scheme, user + at, path, mark + options


def _is_transient(message: str) -> bool:
    """Return whether an error may pass: one about rights or names does not."""
    permanent = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_", "SIGNATURE", "credentials")
    return not any(word in message for word in permanent)


def _explain(error: Exception) -> str:
    """Return the message of a client's error in one line, as far as it helps."""
    message = " ".join(str(error).split())
    for word, plain in _PLAIN.items():
        if word in message:
            return plain
    return message.partition(" (Request ID")[0][:200]


def require_local(place: str | Path, option: str) -> None:
    """Refuse a URL, also one that lost a slash because it became a Path, where a path is needed.

    Raises:
        UsageError: it is a URL; `option` is the name of the option for the message.
    """
    try:
        remote = is_remote(place)
    except UsageError:
        remote = True
    if remote:
        raise UsageError(
            f"{option} is {place}, a URL",
            "give a path; on a cluster, one that all machines share",
        )
