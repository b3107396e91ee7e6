"""Copies of objects on this machine: fetched once for all its processes, known by their version."""

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock

from raygenome.errors import DataError, NoInput, StorageError
from raygenome.storage.bucket import Bucket

if TYPE_CHECKING:
    from pyarrow import fs

_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return where what can be made or fetched again is kept; it need not exist."""
    home = os.environ.get("RAYGENOME_HOME")
    return Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("raygenome"))


def local_copy(url: str, *, beside: tuple[str, ...] = ()) -> Path:
    """Return a copy of an object on this machine, fetched once for all its processes.

    The copy is known by URL, size and time of change, of the companions too, so that what was
    replaced is fetched again. Copies of what is no more stay until the cache is emptied by hand.

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
    parts = {ending: bucket.sibling(ending).info() for ending in beside}
    parts = {ending: each for ending, each in parts.items() if each.is_file}
    name = bucket.path().rpartition("/")[2]
    with _cached(bucket, {"": info, **parts}) as folder:
        if not (folder / name).exists():
            _log.info("fetching %s (%.1f MB)", bucket.url, info.size / 1e6)
            for ending, each in parts.items():  # first, since the copy stands for all of them
                _fetch(bucket.sibling(ending), each, folder / (name + ending))
            _fetch(bucket, info, folder / name)
    return folder / name


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
    with _cached(bucket, found) as cached:
        folder = cached / bucket.path().rpartition("/")[2]
        folder.mkdir(exist_ok=True)
        for name, info in found.items():
            if not (folder / name).exists():
                _fetch(bucket.sibling(f"/{name}"), info, folder / name)
    return folder


@contextlib.contextmanager
def _cached(bucket: Bucket, found: dict[str, "fs.FileInfo"]) -> Iterator[Path]:
    """Give the folder of these versions of objects at and below a place, for this process alone.

    Raises:
        StorageError: the disk failed; the store's own failures are passed on.
    """
    versions = "\0".join(f"{name} {info.size} {info.mtime_ns}" for name, info in found.items())
    key = hashlib.sha256(f"{bucket.url}\0{versions}".encode()).hexdigest()[:32]
    folder = cache_dir() / "objects" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            yield folder
    except OSError as error:
        raise StorageError(
            f"{bucket.url} cannot be kept in {folder} ({error}); free some space there, or set "
            "RAYGENOME_HOME to another folder"
        ) from error


def _fetch(bucket: Bucket, info: "fs.FileInfo", file: Path) -> None:
    """Write the object that `bucket` is to `file`, all of it or nothing.

    Raises:
        DataError: it is not what `info` says any more.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        bucket.download("", temporary)
        now = bucket.info()
        if (now.size, now.mtime_ns) != (info.size, info.mtime_ns):
            raise DataError(f"{bucket.url} was replaced while it was fetched; run the same again")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
