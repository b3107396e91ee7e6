"""FASTA indexes (.fai), and whether one fits its FASTA file.

Readers of FASTA do not notice an index that belongs to another file: they return wrong bases. So
the line lengths and offsets in an index are compared with the file, by a few small reads per
contig. Offsets are in bytes, 0-based, of the uncompressed file; lines end in LF or CRLF.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from raygenome.errors import DataError

#: What lies between the sequences of two contigs is no header line if it is longer than this.
MAX_HEADER = 1 << 20
#: Lines that are checked in each contig, evenly spaced, with the first and the last.
SAMPLED_LINES = 6


class FaiEntry(NamedTuple):
    """One line of a .fai: a contig, the offset of its first base, and the length of its lines."""

    name: str
    length: int
    offset: int
    line_bases: int
    line_width: int

    @property
    def end(self) -> int:
        """Offset after the contig's last base, where its newline is."""
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
                f"{path}: line {number} is not a valid .fai line (name, length, offset, line "
                "bases, line width)",
                "delete the file or run `samtools faidx`",
            )
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry.offset)


def disagreement(entries: Sequence[FaiEntry], content: Bytes) -> str | None:
    """Return a description of the first difference between an index and its FASTA; None if it fits.

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
