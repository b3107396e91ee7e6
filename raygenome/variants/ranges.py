"""The parts of a VCF in an object store that lie in some regions, read through its index by htslib.

Of a whole gnomAD chromosome, a region of a megabase is a few requests. What is read counts as the
input: its records are numbered from 0 in the order in which they come, by contig and position.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pysam

from raygenome.errors import DataError, StorageError
from raygenome.storage import Bucket
from raygenome.variants.regions import Regions

_LOG = logging.getLogger(__name__)

_INDEXES = (".tbi", ".csi")
#: Lines are handed on in pieces of about this many bytes.
_PIECE = 1 << 20


class RangedText:
    """The header of a bgzipped VCF and its lines that overlap some regions, as text.

    Args:
        url: of the VCF; its index lies beside it.
        regions: by the reference's contig names, of which `resolve` finds one for any name.
        resolve: see `regions.Resolve`.

    Attributes:
        name: the input's name in messages.
        offset: how many bytes of text were read.

    Raises:
        NoIndex: it has no index, or htslib cannot open it as it is configured.
    """

    def __init__(self, url: str, regions: Regions, resolve: Callable[[str], str | None]) -> None:
        self.name = url
        self.offset = 0
        self._hash = hashlib.sha256()
        self._regions = regions
        self._resolve = resolve
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(contextlib.closing(_open(url, stack)))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @property
    def digest(self) -> str:
        """The sha256 of the text read so far, in hexadecimal."""
        return self._hash.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Yield the text in pieces of whole lines.

        Raises:
            DataError: a block fails its checksum.
            StorageError: the store failed.
        """
        held: list[str] = []
        size = 0
        for line in self._lines():
            held.append(line)
            size += len(line) + 1
            if size >= _PIECE:
                yield self._taken(held)
                held, size = [], 0
        if held:
            yield self._taken(held)

    def _taken(self, lines: list[str]) -> bytes:
        text = "".join(f"{line}\n" for line in lines).encode("latin-1")
        self._hash.update(text)
        self.offset += len(text)
        return text

    def _lines(self) -> Iterator[str]:
        try:
            yield from self._file.header
            names: dict[str, list[str]] = {}
            for name in self._file.contigs:
                names.setdefault(self._resolve(name) or "", []).append(name)
            contig, reached = "", 0
            for place, start, end in self._regions.intervals():
                reached = reached if place == contig else 0
                for name in names.get(place, ()):
                    for line in self._file.fetch(name, start, min(end, 2**31 - 2)):
                        # A long REF may reach into this interval from the one before.
                        if reached == 0 or int(line.split("\t", 2)[1]) - 1 >= reached:
                            yield line
                contig, reached = place, end
        except OSError as error:
            raise StorageError(
                f"{self.name} could not be read on: {error}; run the same again"
            ) from error
        except ValueError as error:
            raise DataError(f"{self.name}: its index does not fit it ({error})") from error


class NoIndex(Exception):  # noqa: N818 - it is no error: the whole is read then
    """An input that cannot be read by ranges."""


def _index(url: str, folder: Path) -> Path:
    """Return a copy in `folder` of the index beside an object; htslib's own would lie where we are.

    Raises:
        NoIndex: there is none.
    """
    for ending in _INDEXES:
        copy = folder / f"index{ending}"
        with contextlib.suppress(FileNotFoundError):
            Bucket(url).beside(ending).download("", copy)
            return copy
    raise NoIndex(f"{url} has no index (.tbi or .csi) beside it")


def _open(url: str, stack: contextlib.ExitStack) -> pysam.TabixFile:
    """Open an object through htslib, at the endpoint that is set for the other tools."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="raygenome-"))
    index = _index(url, Path(folder))
    set_for = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    endpoint = urlsplit(next(filter(None, set_for), ""))
    if endpoint.netloc and url.startswith("s3://"):
        os.environ.setdefault("HTS_S3_HOST", endpoint.netloc)
        os.environ.setdefault("HTS_S3_ADDRESS_STYLE", "path")
        url = f"s3+{endpoint.scheme}{url.removeprefix('s3')}"
    verbosity = pysam.set_verbosity(0)
    try:
        return pysam.TabixFile(url, index=str(index), encoding="latin-1")
    except (OSError, ValueError) as error:
        raise NoIndex(f"htslib cannot open {url} ({error})") from error
    finally:
        pysam.set_verbosity(verbosity)


def ranged_text(
    url: str, regions: Regions, resolve: Callable[[str], str | None]
) -> RangedText | None:
    """Return the text of `regions` in a VCF, None (and why, in the log) if all has to be read."""
    try:
        return RangedText(url, regions, resolve)
    except NoIndex as why:
        _LOG.info("%s: all of it is read", why)
        return None
