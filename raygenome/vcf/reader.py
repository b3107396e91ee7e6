"""Reading variants: the site columns of VCF text, bgzipped, gzipped or plain, and of BCF.

The format is detected from the content. The same records give the same batches in every format.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa

from raygenome.errors import DataError
from raygenome.genome.intervals import Regions, Resolve
from raygenome.storage.bgzf import inflated_head, pieces
from raygenome.storage.bucket import is_remote
from raygenome.storage.input import (
    RawInput,
    digest_input,
    input_version,
    refuse_other_kinds,
)
from raygenome.vcf import bcf
from raygenome.vcf.header import VcfHeader
from raygenome.vcf.tabix import RangedText, digest_ranges, ranged_text
from raygenome.vcf.text import TextReader

__all__ = [
    "Selection",
    "SiteBatch",
    "VcfHeader",
    "VcfReader",
    "digest_input",
    "digest_ranges",
    "input_version",
    "open_vcf",
]

BATCH_RECORDS = 1 << 18
#: A batch that takes this many bytes is yielded before it has all its records.
_BATCH_BYTES = 64 << 20


class SiteBatch(NamedTuple):
    """The site columns of consecutive records.

    `first_record` is the 0-based number of the first record; the header and blank lines are not
    counted. The columns are Arrow arrays of one length: strings exactly as in the file ("." for
    a missing value, also where a record ends before FILTER), and `pos`, int64, 1-based as in the
    file, null where POS is not a whole number of at most 18 digits.
    """

    first_record: int
    chrom: pa.StringArray
    pos: pa.Int64Array
    id: pa.StringArray
    ref: pa.StringArray
    alt: pa.StringArray
    filter: pa.StringArray


class Selection(NamedTuple):
    """The part of an input that the user asked for.

    Attributes:
        regions: the regions, by the reference's contig names.
        resolve: finds the reference's contig for a name of any style.
    """

    regions: Regions
    resolve: Resolve


class VcfReader:
    """An open input, a context manager, with its header; iterating over it gives the records once.

    `version` is that of `input.input_version`; `ranged` is true if only the selected regions are
    read. After the last record, also when the input is closed, `digest` (sha256 of the stored
    bytes, hexadecimal), `size` (in bytes, as stored), `records` and `blank_lines` are known.

    Args:
        path: as for `open_vcf`.
        batch_records: as for `open_vcf`.
        threads: as for `open_vcf`.
        only: as for `open_vcf`.
    """

    def __init__(
        self, path: str, *, batch_records: int, threads: int, only: Selection | None = None
    ) -> None:
        self.records = 0
        self._path = path
        self.version = input_version(path)
        self._batch_records = batch_records
        self._ended = False
        self._text: TextReader | None = None
        self._sites: Iterator[pa.RecordBatch] | None
        with ExitStack() as stack:
            text = ranged_text(path, *only) if only and is_remote(path) else None
            self.ranged = text is not None
            if text is not None:
                self._raw: RawInput | RangedText = stack.enter_context(closing(text))
                self._text = TextReader(text.pieces(), text.name)
                self.header, self._sites = self._text.header, iter(self._text)
            else:
                self._raw = raw = stack.enter_context(RawInput(path))
                self.header, self._sites = self._open_whole(path, raw, threads, stack)
            self._stack = stack.pop_all()

    def _open_whole(
        self, path: str, raw: RawInput, threads: int, stack: ExitStack
    ) -> tuple[VcfHeader, Iterator[pa.RecordBatch]]:
        content = inflated_head(raw)
        refuse_other_kinds(raw.name, content)
        if content.startswith(bcf.MAGIC):
            return self._open_bcf(path, raw, threads, stack)
        stream = stack.enter_context(closing(pieces(raw, threads=threads)))
        self._text = TextReader(stream, raw.name)
        return self._text.header, iter(self._text)

    def _open_bcf(
        self, path: str, raw: RawInput, threads: int, stack: ExitStack
    ) -> tuple[VcfHeader, Iterator[pa.RecordBatch]]:
        """Check the whole BCF; copy an input that is no local file, since cyvcf2 needs one."""
        if path == "-" or is_remote(path) or raw.stored_size is None:
            copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".bcf"))  # noqa: SIM115
            raw.copy_to = copy
            path = copy.name
        with closing(pieces(raw, threads=threads)) as stream:
            header = bcf.read_header(stream, raw.name)
        if raw.copy_to is not None:
            raw.copy_to.flush()
        return header, bcf.read_sites(path, raw.name)

    def __enter__(self) -> "VcfReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the input and end the threads that inflate it."""
        self._stack.close()

    def __iter__(self) -> Iterator[SiteBatch]:
        """Yield the records in batches of `batch_records`; only the last batch has fewer.

        A batch that takes more than 64 MiB, because its alleles are long, is yielded earlier.

        Raises:
            DataError: a line is not a record, the input is damaged or truncated, or it is an
                object that was replaced while it was read.
        """
        if self._sites is None:
            raise RuntimeError("an input is read once")
        sites, self._sites = self._sites, None
        for batch in _even_batches(sites, self._batch_records):
            first = self.records
            self.records += batch.num_rows
            yield SiteBatch(first, *batch.columns)
        if input_version(self._path) != self.version:
            raise DataError(f"{self._path} was changed while it was read", "repeat the command")
        self._ended = True

    @property
    def blank_lines(self) -> int:
        """How many blank lines were skipped."""
        return self._text.blank_lines if self._text else self.header.blank_lines

    @property
    def digest(self) -> str:
        """The sha256 of the input as stored, in hexadecimal."""
        self._need_end()
        return self._raw.digest

    @property
    def size(self) -> int:
        """The size of the input in bytes, as stored."""
        self._need_end()
        return self._raw.offset

    def _need_end(self) -> None:
        if not self._ended:
            raise RuntimeError("digest and size are known once all records have been read")


def open_vcf(
    path: str,
    *,
    batch_records: int = BATCH_RECORDS,
    threads: int | None = None,
    only: Selection | None = None,
) -> VcfReader:
    """Open VCF text (plain, gzip or BGZF) or BCF and read its header.

    Args:
        path: the file, its URL in an object store, or "-" for standard input.
        batch_records: how many records a batch has.
        threads: how many threads inflate BGZF blocks; if None, as many as there are cores, at
            most 4. The records do not depend on it.
        only: the regions that are needed. Of an object with an index, only these are read; then
            `digest` and `size` are those of the text that was read, and records are numbered
            within it.

    Raises:
        NoInput: there is no such file, it cannot be read, or it is empty.
        DataError: it is truncated, is neither VCF nor BCF, or its header is damaged.
    """
    threads = min(os.cpu_count() or 1, 4) if threads is None else threads
    return VcfReader(path, batch_records=batch_records, threads=threads, only=only)


def _even_batches(parts: Iterator[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `parts` in batches of `n_rows`, or fewer if they take too much memory."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for part in parts:
        held.append(part)
        rows += part.num_rows
        size += part.nbytes
        if rows < n_rows and size < _BATCH_BYTES:
            continue
        whole = pa.concat_batches(held)
        stop = rows if size >= _BATCH_BYTES else rows - rows % n_rows
        for at in range(0, stop, n_rows):
            yield whole.slice(at, min(n_rows, stop - at))
        held = [whole.slice(stop)]
        rows, size = held[0].num_rows, held[0].nbytes
    if rows:
        yield pa.concat_batches(held)
