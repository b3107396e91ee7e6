"""FASTA indexes (.fai, .gzi), and whether one fits its FASTA file.

No reader of FASTA notices an index of another file: it returns wrong bases without a word. So the
geometry that an index claims is compared with the bytes, at a cost of a few small reads a contig.
Offsets are of bytes, 0-based, in the uncompressed file; `lines` end in LF or CRLF.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from raygenome.errors import DataError

#: Longer stretches than this between two contigs' sequences are no header line.
MAX_HEADER = 1 << 20
#: Line ends looked at in each contig, evenly spaced, the first and the last among them.
SAMPLED_LINES = 6


class FaiEntry(NamedTuple):
    """One line of a .fai: a contig, where its first base lies, and the shape of its lines."""

    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int

    @property
    def end(self) -> int:
        """Offset after the contig's last base (its newline comes there)."""
        if self.length == 0:
            return self.offset
        full_lines = (self.length - 1) // self.line_bases
        return (
            self.offset + full_lines * self.line_width + self.length - full_lines * self.line_bases
        )


class Bytes(Protocol):
    """Random access to the uncompressed bytes of a FASTA file."""

    size: int

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), fewer where the file ends before."""


class PlainBytes:
    """The bytes of an uncompressed file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size = path.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), fewer where the file ends before."""
        self._file.seek(start)
        return self._file.read(max(0, stop - start))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BgzfBytes:
    """The uncompressed bytes of a bgzip file, through a table of all its blocks.

    The table is read from the blocks themselves (header and ISIZE, nothing inflated), so it cannot
    be stale as a .gzi can; the walk also finds a truncated file.

    Raises:
        DataError: a block is damaged, or the file lacks its end-of-file block.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # (blocks + 1, 2) int64: where each block starts, compressed and uncompressed; last, the end
        self.starts = _block_starts(path)
        self._file = path.open("rb")
        self.size = int(self.starts[-1, 1])
        self._last: tuple[int, bytes] = (-1, b"")

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), fewer where the file ends before."""
        pieces = []
        stop = min(stop, self.size)
        while start < stop:
            block = int(np.searchsorted(self.starts[:, 1], start, side="right")) - 1
            first = int(self.starts[block, 1])
            piece = self._inflate(block)[start - first : stop - first]
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def _inflate(self, block: int) -> bytes:
        if self._last[0] != block:
            start, stop = (int(at) for at in self.starts[block : block + 2, 0])
            self._file.seek(start)
            try:
                data = zlib.decompress(self._file.read(stop - start), wbits=31)
            except zlib.error as error:
                raise DataError(
                    f"{self._path}: the block at byte {start} is damaged ({error}); "
                    "copy the file again"
                ) from error
            self._last = (block, data)
        return self._last[1]

    def gzi(self) -> bytes:
        """Return the .gzi index: where each block with data starts, the first left out."""
        has_data = np.diff(self.starts[:, 1]) > 0
        table = self.starts[:-1][has_data][1:]
        return struct.pack("<Q", len(table)) + table.astype("<u8").tobytes()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def is_bgzf(head: bytes) -> bool:
    """Tell whether the first 18 bytes of a gzip file are those of a BGZF block."""
    return head[:4] == b"\x1f\x8b\x08\x04" and head[12:16] == b"BC\x02\x00"


def _block_starts(path: Path) -> np.ndarray:
    """Walk the BGZF blocks; return (blocks + 1, 2) int64 starts, compressed and uncompressed."""
    starts = []
    with path.open("rb") as file:
        # Small reads at places, no mmap: its pages would count as this process's memory.
        descriptor, length = file.fileno(), path.stat().st_size
        at = uncompressed = inflated = 0
        head = os.pread(descriptor, 18, 0)
        while at < length:
            size = int.from_bytes(head[16:18], "little") + 1
            if not is_bgzf(head) or at + size > length:
                break
            starts.append((at, uncompressed))
            # a block's last four bytes are its inflated size; the next block's header follows
            tail = os.pread(descriptor, 22, at + size - 4)
            inflated, head = int.from_bytes(tail[:4], "little"), tail[4:]
            at, uncompressed = at + size, uncompressed + inflated
        if at < length or inflated != 0:
            why = "a block is cut or damaged" if at < length else "its end-of-file block is missing"
            raise DataError(
                f"{path}: truncated at byte {at} of {length} ({why}); copy or download it again"
            )
    return np.array([*starts, (at, uncompressed)], dtype=np.int64)


def read_fai(path: Path) -> list[FaiEntry]:
    """Return the entries of a .fai in the order of their sequences in the FASTA.

    Raises:
        DataError: a line is not name, length, offset, line bases, line width.
    """
    entries = []
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        name, *numbers = line.split("\t")
        try:
            entry = FaiEntry(name, *(int(value) for value in numbers))
            damaged = min(entry[1:]) < 0 or entry.line_bases > entry.line_width
            damaged = damaged or (entry.length > 0 and entry.line_bases == 0)
        except (TypeError, ValueError):
            damaged = True
        if damaged:
            raise DataError(
                f"{path}: line {number} is no line of a FASTA index (name, length, offset, "
                "line bases, line width); delete the file or run `samtools faidx`"
            )
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry.offset)


def disagreement(entries: Sequence[FaiEntry], content: Bytes) -> str | None:
    """Return in words the first thing in which an index and its FASTA disagree; None if they agree.

    Every contig must be preceded by its header line, hold the line ends where the index puts them
    (first, last, and some between), and be followed by the next header or the end of the file.

    Args:
        entries: the index, sorted by offset.
        content: the FASTA's uncompressed bytes.
    """
    if not entries:
        return "it lists no contig"
    seen: set[str] = set()
    end = 0
    for entry in entries:
        if not entry.name:
            return f"the contig at byte {entry.offset} has no name"
        if entry.name in seen:
            return f"contig {entry.name!r} is there twice"
        problem = _between(content, end, entry, seen) or _line_problem(content, entry)
        if problem:
            return problem
        seen.add(entry.name)
        end = entry.end
    return _between(content, end, None, seen)


def _between(content: Bytes, start: int, entry: FaiEntry | None, seen: set[str]) -> str | None:
    """Check the bytes from a contig's end to the next one's first base, or to the file's end."""
    stop = content.size if entry is None else entry.offset
    what = f"before contig {entry.name!r}" if entry else "after the last contig"
    if stop < start or stop > content.size:
        return (
            f"contig {entry.name!r} cannot start at byte {stop}"
            if entry
            else "the file is too short"
        )
    lines = content.read(start, min(stop, start + MAX_HEADER)).split(b"\n")
    if start > 0 and lines[0].strip():
        return f"the sequence {what} is longer than the index says (byte {start})"
    names = []
    for line in lines:
        if line.startswith(b">"):
            words = line[1:].split(None, 1) or [b""]
            names.append(words[0].decode("utf-8", "surrogateescape"))
            if names[-1] in seen:
                return f"contig {names[-1]!r} is there twice"
        elif line.strip():
            return f"there is sequence {what} that the index does not list (near byte {start})"
    if stop - start > MAX_HEADER:
        return f"{stop - start} bytes {what} hold no sequence"
    if entry is not None and (not names or names[-1] != entry.name or lines[-1]):
        found = f"{names[-1]!r}" if names else "none"
        return (
            f"there is no header line of contig {entry.name!r} before byte {stop} (found {found})"
        )
    return None


def _line_problem(content: Bytes, entry: FaiEntry) -> str | None:
    """Check that a contig ends within the file and that some of its lines are as indexed."""
    if entry.end > content.size:
        return (
            f"contig {entry.name!r} should reach byte {entry.end}, "
            f"the FASTA ends at byte {content.size}"
        )
    if entry.length == 0:
        return None
    last = (entry.length - 1) // entry.line_bases
    for line in sorted({last * step // (SAMPLED_LINES - 1) for step in range(SAMPLED_LINES)}):
        start = entry.offset + line * entry.line_width
        stop = min(start + entry.line_bases, entry.end)
        text = content.read(start, stop + entry.line_width - entry.line_bases)
        bases, newline = text[: stop - start], text[stop - start :]
        at_end = stop == entry.end and stop + len(newline) == content.size
        if (
            b"\n" in bases
            or b"\r" in bases
            or not (newline.endswith(b"\n") or at_end)
            or newline.strip()
        ):
            return f"contig {entry.name!r} has no line of {stop - start} bases at byte {start}"
    return None
