"""Downloading the published weights: one file each, known by its md5."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import pooch

from raygenome.errors import DataError, NoInput, OutputError, StorageError, UsageError
from raygenome.models import PUBLISHED
from raygenome.models.published import PublishedFile
from raygenome.registry import checkpoints, registry

logger = logging.getLogger(__name__)

#: Seconds to wait for a connection, and for each next piece of the file.
TIMEOUT_S = 20.0

Progress = Callable[[int, int], None]


def published(name: str) -> PublishedFile:
    """Return what is known about a published file; raise UsageError for an unknown name."""
    if name not in PUBLISHED:
        raise UsageError(
            f"no published weights are called {name!r}; there are: {', '.join(PUBLISHED)}"
        )
    return PUBLISHED[name]


def pull(
    name: str, *, overwrite: bool = False, progress: Progress | None = None
) -> registry.ModelSpec:
    """Download published weights, check them and make the model of that name; return its spec.

    Args:
        name: a key of `raygenome.models.PUBLISHED`.
        overwrite: replace a model of that name.
        progress: called with the number of bytes received so far and the total.

    Raises:
        UsageError: no published weights have that name.
        NoInput: the file could not be fetched; the message says how to get it by hand.
        DataError: the download has another md5 than the published file.
        OutputError: the model exists, or cannot be made.
    """
    file = published(name)
    registry.free_directory(name, overwrite=overwrite)  # refuse before the download, not after
    logger.info("%s: %.0f MB, licence %s, %s", name, file.size / 1e6, file.licence, file.url)
    try:
        registry.home().mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".pull-", dir=registry.home())
    except OSError as error:
        raise OutputError(f"cannot write under {registry.home()}: {error.strerror}") from None
    with folder as path:
        downloaded = _download(name, file, Path(path), progress)
        return checkpoints.import_checkpoint(
            name, downloaded, file.architecture, overwrite=overwrite
        )


def _download(name: str, file: PublishedFile, folder: Path, progress: Progress | None) -> Path:
    """Return the file, downloaded into `folder`, with its md5 checked."""
    pooch.get_logger().setLevel(logging.WARNING)  # it would announce on stderr what we announce
    downloader = pooch.HTTPDownloader(
        timeout=TIMEOUT_S,
        chunk_size=1 << 20,
        progressbar=_Meter(progress, file.size) if progress else False,
    )
    by_hand = (
        f"get {file.url} (md5 {file.md5}) by hand, and run: "
        f"raygenome models import {name} FILE --architecture {file.architecture}"
    )
    try:
        fetched = pooch.retrieve(
            file.url,
            known_hash=f"md5:{file.md5}",
            fname=file.url.rpartition("/")[2].partition("?")[0],
            path=folder,
            downloader=downloader,
        )
    except OSError as error:  # requests' errors are of this family, and have no strerror
        if error.strerror:
            raise StorageError(f"writing the download of {name} failed: {error}") from None
        raise NoInput(f"cannot download {name} ({_reason(error)})", by_hand) from None
    except ValueError:
        raise DataError(f"the download of {name} has another md5 than it needs", by_hand) from None
    return Path(fetched)


def _reason(error: OSError) -> str:
    """Return the reason of a failed download in a few words; the texts of requests are long."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    name = type(error).__name__
    return {
        "ConnectionError": "no connection",
        "ChunkedEncodingError": "the connection broke off",
    }.get(name, name)


class _Meter:
    """The part of tqdm's interface that pooch calls, in front of a plain callback."""

    def __init__(self, progress: Progress, size: int) -> None:
        self.total = 0  # pooch sets it, if the server sends the size
        self._size = size
        self._done = 0
        self._progress = progress

    def update(self, size: int) -> None:
        total = self.total or self._size
        self._done = min(self._done + size, total)  # pooch counts the last chunk as a full one
        self._progress(self._done, total)

    def reset(self) -> None:
        # pooch calls this at the end, just before it reports the whole size once more
        self._done = 0

    def close(self) -> None:
        pass
