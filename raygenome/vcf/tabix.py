"""Regions of a VCF in an object store, read through its index by htslib.

A region of a megabase of a gnomAD chromosome takes a few requests. The records that are read count
as the whole input: they are numbered from 0 in the order in which they are read, by contig and
position. An index is used if it ends where the file ends. Its age does not matter, since files may
be uploaded in any order.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlsplit

import pysam

from raygenome.errors import DataError, StorageError
from raygenome.genome.intervals import Interval, Regions
from raygenome.storage.bgzf import check_end, is_bgzf
from raygenome.storage.bucket import Bucket
from raygenome.vcf.index import ends_there, last_offset

_LOG = logging.getLogger(__name__)

_INDEXES = (".tbi", ".csi")
#: Lines are yielded in pieces of about this many bytes.
_PIECE = 1 << 20
#: Regions that are closer than this are read as one: a second request would take longer.
_GAP = 16_000
#: htslib reads no position beyond this one.
_LAST = 2**31 - 2
#: So many last bytes of a file hold its last block and the end-of-file block.
_TAIL = 1 << 17


class RangedText:
    """The header of a bgzipped VCF and its lines that overlap some regions, as text.

    Lines between regions that are close to each other may be among them.

    Args:
        url: URL of the VCF; the index is next to it.
        regions: the regions, by the reference's contig names.
        resolve: finds the reference's contig for a name of any style.

    Attributes:
        name: the input's name in messages.
        offset: how many bytes of text were read.

    Raises:
        NoIndex: the VCF has no index that fits, or htslib cannot open it.
        DataError: the VCF is truncated.
        StorageError: the store failed.
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
                yield self._encode(held)
                held, size = [], 0
        if held:
            yield self._encode(held)

    def _encode(self, lines: list[str]) -> bytes:
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
            for place, start, end in _wide(self._regions):
                reached = reached if place == contig else 0
                for name in names.get(place, ()):
                    for line in self._file.fetch(name, start, end):
                        # A line with a long REF may have been read with the interval before.
                        if reached == 0 or int(line.split("\t", 2)[1]) - 1 >= reached:
                            yield line
                contig, reached = place, end
        except OSError as error:
            _raise_unread(self.name, error)
        except ValueError as error:
            raise DataError(
                f"the index of {self.name} does not fit it ({error})", "make a new index with tabix"
            ) from error


class NoIndex(Exception):  # noqa: N818 - no error for the user: the whole input is read then
    """An input that cannot be read by regions."""


def _wide(regions: Regions) -> Iterator[Interval]:
    """Yield the intervals that htslib can read; intervals close to each other become one."""
    held: Interval | None = None
    for interval in regions.intervals():
        if interval.start >= _LAST:
            continue
        interval = interval._replace(end=min(interval.end, _LAST))
        if held and held.contig == interval.contig and interval.start - held.end < _GAP:
            interval = interval._replace(start=held.start)
        elif held:
            yield held
        held = interval
    if held:
        yield held


def _raise_unread(name: str, error: OSError) -> NoReturn:
    raise StorageError(f"reading {name} failed: {error}", "repeat the command") from error


def _index(url: str, folder: Path) -> Path:
    """Download the index beside an object to `folder`; htslib would put it in the working folder.

    Raises:
        NoIndex: there is no index, or it belongs to another file.
        DataError: the object is truncated.
        StorageError: the store failed.
    """
    for ending in _INDEXES:
        copy = folder / f"index{ending}"
        with contextlib.suppress(FileNotFoundError):
            Bucket(url).sibling(ending).download("", copy)
            _check_index(url, ending, copy.read_bytes())
            return copy
    raise NoIndex(f"{url} has no index (.tbi or .csi) beside it")


def _check_index(url: str, ending: str, index: bytes) -> None:
    """Raise NoIndex unless an index ends where the records of its object end; see `_index`."""
    try:
        with Bucket(url).open() as file:
            size = file.size()
            head = file.read_at(min(size, _TAIL), 0)
            tail = file.read_at(min(size, _TAIL), max(size - _TAIL, 0))
    except OSError as error:
        _raise_unread(url, error)
    if not is_bgzf(head):
        raise NoIndex(f"{url} is not compressed with bgzip")
    check_end(url, size, tail)
    try:
        end = last_offset(index)
    except ValueError as error:
        raise NoIndex(f"the index of {url} ({ending}) is {error}") from error
    if not ends_there(end, size, tail):
        raise NoIndex(f"the index of {url} ({ending}) belongs to another file; make a new one")


def _open(url: str, stack: contextlib.ExitStack) -> pysam.TabixFile:
    """Open an object by htslib, at the endpoint that the environment sets for AWS tools."""
    scheme, _, place = url.partition("://")
    if "?" in url or "@" in place.partition("/")[0]:
        raise NoIndex(f"{url}: htslib supports neither options after ? nor a user in a URL")
    if quote(place) != place:
        raise NoIndex(f"{url}: htslib may change special characters in this name")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="raygenome-"))
    index = _index(url, Path(folder))
    set_for = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    endpoint = urlsplit(next(filter(None, set_for), ""))
    if endpoint.netloc and scheme == "s3":
        stack.enter_context(_environment(HTS_S3_HOST=endpoint.netloc, HTS_S3_ADDRESS_STYLE="path"))
        url = f"s3+{endpoint.scheme}://{place}"
    verbosity = pysam.set_verbosity(0)
    try:
        return pysam.TabixFile(url, index=str(index), encoding="latin-1")
    except (OSError, ValueError) as error:
        raise NoIndex(f"htslib cannot open {url} ({error})") from error
    finally:
        pysam.set_verbosity(verbosity)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def ranged_text(
    url: str, regions: Regions, resolve: Callable[[str], str | None]
) -> RangedText | None:
    """Return the text of `regions` in a VCF; None if all of it has to be read (the log says why).

    Raises:
        DataError: the VCF is truncated.
        StorageError: the store failed.
    """
    try:
        return RangedText(url, regions, resolve)
    except NoIndex as why:
        _LOG.warning("%s: the whole file is read", why)
        return None


def digest_ranges(url: str, regions: Regions, resolve: Callable[[str], str | None]) -> str | None:
    """Return the sha256 (hexadecimal) of `ranged_text`; None if the whole file has to be read.

    Raises:
        DataError: a block fails its checksum.
        StorageError: the store failed.
    """
    text = ranged_text(url, regions, resolve)
    if text is None:
        return None
    with contextlib.closing(text):
        for _ in text.pieces():
            pass
        return text.digest
