"""Reading variants: the site columns of VCF text, bgzipped, gzipped or plain, and of BCF.

What an input is, is decided by its content. The same records give the same batches in whichever
of these forms they come.
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
#: Sites that are held for a full batch are let go before that once they take this many bytes.
_BATCH_BYTES = 64 << 20


class SiteBatch(NamedTuple):
    """The site columns of some records that follow one another in the input.

    `first_record` is the 0-based number of the first of them; the header and blank lines do not
    count. The columns are Arrow arrays of one length: strings exactly as in the file ("." for
    what is missing, also where a record ends before FILTER), and `pos`, int64, 1-based as in the
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
    """The part of an input that is asked for.

    Attributes:
        regions: by the reference's contig names.
        resolve: finds the reference's contig for a name of any style.
    """

    regions: Regions
    resolve: Resolve


class VcfReader:
    """An open input, a context manager: its header now, its records by iterating over it once.

    `version` is `rawinput.input_version`; `ranged` tells whether no more than what is asked for is
    read of the input.
    After the last record `digest` (sha256 of the input as stored, hexadecimal), `size` (its bytes
    as stored), `records` and `blank_lines` are those of the whole input, also when it is closed.

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
        """Check the whole BCF; what is no local file is kept in a temporary one for it."""
        if path == "-" or is_remote(path) or raw.stored_size is None:
            spool = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".bcf"))  # noqa: SIM115
            raw.copy_to = spool
            path = spool.name
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
        """Yield the records in batches of `batch_records`; the last, and only it, has fewer.

        (A batch that takes more than 64 MiB, because its alleles are long, is yielded earlier.)

        Raises:
            DataError: a line is not a record, the input is damaged or truncated, or it is an
                object that was replaced meanwhile.
        """
        if self._sites is None:
            raise RuntimeError("an input is read once")
        sites, self._sites = self._sites, None
        for batch in _even_batches(sites, self._batch_records):
            first = self.records
            self.records += batch.num_rows
            yield SiteBatch(first, *batch.columns)
        if input_version(self._path) != self.version:
            raise DataError(f"{self._path} changed while it was read; run the same again")
        self._ended = True

    @property
    def blank_lines(self) -> int:
        """How many blank lines were passed over."""
        return self._text.blank_lines if self._text else self.header.blank_lines

    @property
    def digest(self) -> str:
        """The sha256 of the input as stored, in hexadecimal."""
        self._need_end()
        return self._raw.digest

    @property
    def size(self) -> int:
        """How many bytes the input has, as stored."""
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
        threads: how many threads inflate BGZF blocks; as many as there are cores, at most 4, if
            None. What is read does not depend on it.
        only: of an object with an index, no more than this need be read; then `digest` and `size`
            are those of the text that was, and records are numbered within it.

    Raises:
        NoInput: there is no such file, it cannot be read, or it is empty.
        DataError: it is truncated, is neither VCF nor BCF, or its header is damaged.
    """
    threads = min(os.cpu_count() or 1, 4) if threads is None else threads
    return VcfReader(path, batch_records=batch_records, threads=threads, only=only)


def _even_batches(parts: Iterator[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `parts` in batches of `n_rows`, earlier where they take too much memory."""
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
