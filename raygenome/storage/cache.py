"""Copies of objects on this machine: fetched once for all its processes, known by their version."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from raygenome.errors import DataError, NoInput, StorageError
from raygenome.storage.bucket import Bucket
from raygenome.storage.files import atomic_file
from raygenome.storage.home import cache_dir

if TYPE_CHECKING:
    from pyarrow import fs

_log = logging.getLogger(__name__)


def local_copy(url: str, *, companions: tuple[str, ...] = ()) -> Path:
    """Return a copy of an object on this machine, fetched once for all its processes.

    A copy belongs to one version of the object, known by URL, size and time of the last change of
    the object and its companions, so that a replaced object is fetched again. Copies of earlier
    versions stay until the user empties the cache.

    Args:
        url: of the object.
        companions: endings of further objects, such as ".fai", which are fetched too if they exist.

    Raises:
        NoInput: there is no such object, or the store cannot be reached.
        StorageError: the store or the disk failed.
    """
    bucket = Bucket(url)
    info = bucket.info()
    if not info.is_file:
        raise NoInput(f"there is no object {url}")
    others = {ending: bucket.sibling(ending).info() for ending in companions}
    others = {ending: each for ending, each in others.items() if each.is_file}
    name = bucket.path().rpartition("/")[2]
    with _cached(bucket, {"": info, **others}) as folder:
        if not (folder / name).exists():
            _log.info("fetching %s (%.1f MB)", bucket.url, info.size / 1e6)
            for ending, each in others.items():  # first, since the object stands for all of them
                _fetch(bucket.sibling(ending), each, folder / (name + ending))
            _fetch(bucket, info, folder / name)
    return folder / name


def local_folder(url: str, names: tuple[str, ...]) -> Path:
    """Return a folder on this machine with copies of `names` below a URL; see `local_copy`.

    Raises:
        NoInput: there is no object of one of the names.
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
    """Yield the cache folder of these versions of objects, to one process at a time.

    Raises:
        StorageError: the disk failed; errors of the store are raised as they are.
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
            f"{bucket.url} cannot be kept in {folder} ({error})",
            "free some space there, or set RAYGENOME_HOME to another folder",
        ) from error


def _fetch(bucket: Bucket, info: "fs.FileInfo", file: Path) -> None:
    """Write the object at `bucket` to `file`, whole or not at all.

    Raises:
        DataError: it is no longer the version of `info`.
    """
    with atomic_file(file, durable=False) as temporary:
        bucket.download("", temporary)
        now = bucket.info()
        if (now.size, now.mtime_ns) != (info.size, info.mtime_ns):
            raise DataError(
                f"{bucket.url} was replaced while it was fetched", "run the same command again"
            )
