"""VCF text: whole lines to Arrow columns, of which only the site columns are converted.

Arrow's CSV reader finds the columns of a block whose lines all have the header's columns. It has
rules of its own for carriage returns, NUL bytes and byte order marks. So blocks with those or with
any other unusual line are read line by line in Python, which accepts the line or reports it with
its number. CPU time per record without INFO: 0.15 us by Arrow, 5 us by Python; with the genotypes
of 2,504 samples: 20 us by Arrow, 10 us by Python, which does not look at them.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from raygenome.errors import DataError, NoInput
from raygenome.genome.alleles import SITES
from raygenome.vcf.header import BOM, FEWEST_COLUMNS, SITE_COLUMNS, VcfHeader, shown

#: No line may be longer: it has to be held as one.
LONGEST_LINE = 256 << 20

#: The columns that are converted: the site columns but QUAL.
_KEPT = tuple(name for name in SITE_COLUMNS if name != "QUAL")
#: Arrow reads so many bytes at a time; with larger blocks it takes twice the time.
_CSV_BLOCK = 1 << 19
#: With more columns than this, reading line by line is faster.
_MANY_COLUMNS = 1_000
#: POS with more digits is no position of any genome, and is null.
_DIGITS = 18
_NEWLINE = ord("\n")
_INTEGER = rf"^-?[0-9]{{1,{_DIGITS}}}$"


class TextReader:
    """Reads the header of VCF text, then its records.

    Args:
        pieces: the text, cut at any bytes.
        name: the input's, for messages.
    """

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self.header = VcfHeader()
        self.blank_lines = 0
        self._name = name
        self._lines = 0
        self._blocks = self._whole_lines(pieces)
        self._rest = self._read_header()
        self.blank_lines = self.header.blank_lines

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield record batches of `SITES`, in order.

        Raises:
            DataError: a line is not a record, or the last line is truncated.
        """
        if self._rest:
            yield self._parse(self._rest)
        for block in self._blocks:
            yield self._parse(block)

    def _whole_lines(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield blocks of whole lines; only the last block may lack its final newline."""
        held: list[bytes | memoryview] = []
        size = 0
        for piece in pieces:
            cut = piece.rfind(b"\n") + 1
            if cut:
                yield b"".join([*held, memoryview(piece)[:cut]])
                held, size = [], 0
            held.append(memoryview(piece)[cut:])
            size += len(piece) - cut
            if size > LONGEST_LINE:
                raise DataError(
                    f"{self._name}, line {self._lines + 1}: longer than "
                    f"{LONGEST_LINE >> 20} MiB, which no VCF needs",
                    "check whether the file is damaged",
                )
        if last := b"".join(held):
            yield last

    def _read_header(self) -> bytes:
        """Read up to the #CHROM line; return the rest of its block."""
        for block in self._blocks:
            at = 0
            while at < len(block):
                end = block.find(b"\n", at)
                end = len(block) if end < 0 else end
                self.header.add(block[at:end], self._name)
                self._lines += 1
                at = end + 1
                if self.header.complete:
                    return block[at:]
        if self._lines == 0:
            raise NoInput(f"{self._name} holds nothing once inflated", "give a VCF")
        raise DataError(
            f"{self._name} has no '#CHROM' line with column names after the "
            f"{self._lines} lines of its header; it may be truncated",
            "download or copy it again",
        )

    def _parse(self, block: bytes) -> pa.RecordBatch:
        n_lines = int(np.count_nonzero(np.frombuffer(block, np.uint8) == _NEWLINE))
        if not block.endswith(b"\n"):
            self._check_last(block[block.rfind(b"\n") + 1 :], n_lines)
            n_lines += 1
        batch = _parse_regular(block, self.header.n_columns)
        if batch is None:
            batch = self._parse_lines(block)
        self._lines += n_lines
        self.blank_lines += n_lines - batch.num_rows
        return batch

    def _check_last(self, line: bytes, index: int) -> None:
        """Refuse a last line without a newline that also lacks columns of the header."""
        found = line.count(b"\t") + 1
        if line.strip() and found < self.header.n_columns and b"\t" in line:
            raise DataError(
                f"{self._name} is truncated in its last line: line {self._lines + index + 1} has "
                f"{found} of {self.header.n_columns} columns and no newline",
                "download or copy it again",
            )

    def _parse_lines(self, block: bytes) -> pa.RecordBatch:
        """Return the sites of any block, or raise DataError for the first bad line."""
        rows = [
            self._fields(line, number)
            for number, text in enumerate(block.split(b"\n"), start=self._lines + 1)
            if (line := text.removesuffix(b"\r"))
        ]
        words = [
            pa.array([row[i].decode("utf-8", "replace") for row in rows], pa.string())
            for i in range(len(SITE_COLUMNS))
        ]
        return _sites(dict(zip(SITE_COLUMNS, words, strict=True)))

    def _fields(self, line: bytes, number: int) -> list[bytes]:
        """Return the site columns of a line that is not blank; "." for those that it lacks."""
        fields = line.split(b"\t", len(SITE_COLUMNS))[: len(SITE_COLUMNS)]
        where = f"{self._name}, line {number}"
        if any(b"\0" in field for field in fields):
            raise DataError(f"{where}: holds NUL bytes; the file is damaged", "copy it again")
        if line.startswith(b"#"):
            raise DataError(
                f"{where}: a second header or a comment, {shown(line)}, between records",
                "if files were joined, join them with 'bcftools concat'",
            )
        if len(fields) < FEWEST_COLUMNS:
            raise DataError(
                f"{where}: {len(fields)} columns separated by tabs, and at least "
                f"{FEWEST_COLUMNS} are needed (CHROM POS ID REF ALT), found {shown(line)}",
                "its columns are separated by spaces: turn them into tabs"
                if line.count(b" ") > 3
                else "",
            )
        return fields + [b"."] * (len(SITE_COLUMNS) - len(fields))


def _parse_regular(block: bytes, n_columns: int) -> pa.RecordBatch | None:
    """Return the sites of a block of lines; None if one of them is unusual.

    Args:
        block: whole lines.
        n_columns: how many columns the header has.
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if b"\r" in block or b"\0" in block or block.startswith(BOM) or n_columns > _MANY_COLUMNS:
        return None
    names = [*SITE_COLUMNS, *map(str, range(len(SITE_COLUMNS), n_columns))][:n_columns]
    kept = [name for name in names if name in _KEPT]
    try:
        table = csv.read_csv(
            pa.BufferReader(block),
            read_options=csv.ReadOptions(
                column_names=names, block_size=_CSV_BLOCK, use_threads=False
            ),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=kept,
                column_types=dict.fromkeys(kept, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:  # another number of columns, not UTF-8, a long line, or no record
        return None
    columns = {name: table[name].combine_chunks() for name in kept}
    if pc.any(pc.starts_with(columns[SITE_COLUMNS[0]], "#")).as_py():
        return None
    if SITE_COLUMNS[-1] not in columns:
        columns[SITE_COLUMNS[-1]] = pa.repeat(".", table.num_rows)
    return _sites(columns)


def _sites(columns: dict[str, pa.StringArray]) -> pa.RecordBatch:
    """Return a batch of `SITES` from the text of the columns."""
    kept = {**columns, "POS": _positions(columns["POS"])}
    return pa.RecordBatch.from_arrays([kept[name] for name in _KEPT], schema=SITES)


def _positions(words: pa.StringArray) -> pa.Int64Array:
    """Return `words` as decimal numbers; null for a word that is not a number."""
    longest = pc.max(pc.binary_length(words)).as_py() or 0
    if longest > _DIGITS or not pc.all(pc.ascii_is_decimal(words)).as_py():
        # A cast alone would also take words such as " 7" and "0x7".
        is_number = pc.match_substring_regex(words, _INTEGER)
        words = pc.if_else(is_number, words, pa.scalar(None, pa.string()))
    return words.cast(pa.int64())
