"""Parts of the genome: intervals, their union, region strings such as `chr20:1,000-2,000`, and BED.

A region string is 1-based and includes its last base, as in bcftools. BED files are 0-based and
half-open, and so is everything here.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.storage.bgzf import pieces
from raygenome.storage.input import RawInput

#: Finds the reference's contig for a name of any style; None if there is none.
Resolve = Callable[[str], str | None]
#: The same with an error for unknown names; its second argument, "FILE, line N", begins the error.
Find = Callable[[str, str], str]
#: Intervals of one contig: starts and ends, int64 (n,) each, 0-based half-open.
Spans = tuple[np.ndarray, np.ndarray]

#: The end of a region that has none: beyond every contig, and safe to calculate with.
OPEN_END = 1 << 60

_SPAN = re.compile(r"([0-9][0-9,]*)(?:(-)([0-9][0-9,]*)?)?")
#: A region whose last number may continue behind a comma, and what such a continuation looks like.
_GROUPED = re.compile(r":([0-9,]+-)?[0-9]{1,3}(,[0-9]{3})*$")
_NEXT_GROUP = re.compile(r"[0-9]{3}(-[0-9]{0,3})?")
#: A number of a BED file may have so many digits.
_DIGITS = 18
_NUMBER = re.compile(rb"-?[0-9]{1,%d}" % _DIGITS)


class Interval(NamedTuple):
    """The bases [start, end) of a contig, 0-based. `str()` gives the 1-based region string."""

    contig: str
    start: int
    end: int

    def __str__(self) -> str:
        if self.end < OPEN_END:
            return f"{self.contig}:{self.start + 1:,}-{self.end:,}"
        return f"{self.contig}:{self.start + 1:,}-" if self.start else self.contig


def union(starts: np.ndarray, ends: np.ndarray) -> Spans:
    """Return the union of intervals, sorted; intervals that touch become one.

    Args:
        starts: int64 (n,), in any order.
        ends: (n,), each beyond its start.
    """
    if len(starts) == 0:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return starts[first], reach[last]


class Regions:
    """Sorted, merged intervals of each contig.

    Args:
        intervals: 0-based half-open, none empty, in any order; they may overlap.
    """

    def __init__(self, intervals: Iterable[Interval | tuple[str, int, int]]) -> None:
        by_contig: dict[str, list[tuple[int, int]]] = {}
        for contig, start, end in intervals:
            by_contig.setdefault(contig, []).append((start, end))
        arrays = {contig: np.array(spans, dtype=np.int64) for contig, spans in by_contig.items()}
        self._merged = _merged({contig: (a[:, 0], a[:, 1]) for contig, a in arrays.items()})

    @classmethod
    def of_spans(cls, spans: Mapping[str, Spans]) -> "Regions":
        """Return the regions of intervals given as arrays by contig."""
        regions = cls(())
        regions._merged = _merged(spans)
        return regions

    def __len__(self) -> int:
        """Return the number of merged intervals."""
        return sum(len(starts) for starts, _ in self._merged.values())

    def intervals(self) -> Iterator[Interval]:
        """Yield the merged intervals, sorted by contig name and start."""
        for contig, (starts, ends) in self._merged.items():
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                yield Interval(contig, start, end)

    def on(self, contig: str) -> Spans:
        """Return the merged intervals of a contig, sorted."""
        nothing = np.empty(0, dtype=np.int64)
        return self._merged.get(contig, (nothing, nothing))

    def overlaps(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the intervals [start, end) of `contig` share a base with these regions.

        Args:
            contig: the reference's name for it.
            start: 0-based, (n,).
            end: (n,); an interval without bases overlaps nothing.

        Returns:
            bool (n,).
        """
        starts, ends = self.on(contig)
        # Regions are sorted and do not touch: the first that ends beyond `start` decides.
        first = np.searchsorted(ends, start, side="right")
        begins = np.append(starts, np.iinfo(np.int64).max)[first]
        return np.asarray((begins < end) & (start < end))

    def covers(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the intervals [start, end) of `contig` lie completely in these regions.

        Args:
            contig: the reference's name for it.
            start: 0-based, (n,).
            end: (n,), each beyond its start.

        Returns:
            bool (n,).
        """
        if contig not in self._merged:
            return np.zeros(len(start), dtype=bool)
        starts, ends = self._merged[contig]
        last = np.searchsorted(starts, start, side="right") - 1
        return np.asarray((last >= 0) & (end <= ends[last]))

    def digest(self) -> str:
        """Return a sha256 (hexadecimal) of the bases covered, in whatever form they were given."""
        lines = (f"{contig}\t{start}\t{end}\n" for contig, start, end in self.intervals())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _merged(spans: Mapping[str, Spans]) -> dict[str, Spans]:
    return {contig: union(*spans[contig]) for contig in sorted(spans)}


# --------------------------------------------------------------------------------------------
# region strings


def load_regions(
    specs: Sequence[str], beds: Sequence[str | Path], resolve: Resolve, *, known: Sequence[str] = ()
) -> Regions:
    """Return the union of region strings and BED files, under the reference's contig names.

    Args:
        specs: region strings (see `parse_region`), or several in one string, separated by commas.
        beds: BED files, or their URLs in an object store, plain or compressed with gzip or bgzip.
        resolve: finds the reference's contig for a name of any style.
        known: the reference's contigs, of which messages name some.

    Raises:
        UsageError: a string that is not a region.
        DataError: a contig that the reference lacks, or a line that is not BED.
        NoInput: a BED file that does not exist, cannot be read, or holds no interval.
    """
    find = _finder(resolve, known)
    intervals = [
        parse_region(region, resolve, known=known)
        for spec in specs
        for region in _split_list(spec, resolve)
    ]
    for bed in beds:
        for contig, (starts, ends) in read_bed(bed, find).items():
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            intervals.extend(Interval(contig, start, end) for start, end in pairs)
    return Regions(intervals)


def parse_region(text: str, resolve: Resolve, *, known: Sequence[str] = ()) -> Interval:
    """Return the interval of a region string.

    "chr20" is the whole contig, "chr20:1000" one base (as in bcftools), "chr20:1,000-2,000" both
    bases and all between them, "chr20:1000-" all from there on. Contig names may hold colons, such
    as HLA-A*01:01: where the whole of `text` is the name of a contig, it means that contig.

    Args:
        text: the region.
        resolve: as for `load_regions`.
        known: as for `load_regions`.

    Raises:
        UsageError: the text is not a region, or the region has no bases.
        DataError: its contig is unknown.
    """
    contig = resolve(text)
    if contig is not None:
        return Interval(contig, 0, OPEN_END)
    name, _, span = text.rpartition(":")
    found = _SPAN.fullmatch(span) if name else None
    if not text or (name and found is None and resolve(name) is not None):
        raise UsageError(
            f"{text!r} is not a region",
            "write it as chr20, chr20:1000, chr20:1,000-2,000 or chr20:1000-",
        )
    contig = _finder(resolve, known)(name if found else text, f"the region {text!r}")
    if found is None:
        return Interval(contig, 0, OPEN_END)
    first = last = _plain(found[1])
    if found[2]:
        last = _plain(found[3]) if found[3] else OPEN_END
    if not 1 <= first <= last <= OPEN_END:
        raise UsageError(
            f"the region {text!r} is empty",
            "positions count from 1, and the last must not be below the first",
        )
    return Interval(contig, first - 1, last)


def _plain(number: str) -> int:
    return int(number.replace(",", ""))


def _finder(resolve: Resolve, known: Sequence[str]) -> Find:
    """Return `resolve` with an error for unknown names; see `Find`."""

    def find(name: str, where: str) -> str:
        contig = resolve(name)
        if contig is None:
            raise DataError(unknown_contig(name, where, known))
        return contig

    return find


def unknown_contig(name: str, where: str, known: Sequence[str]) -> str:
    """Return a message: the reference has no contig `name`, it has those in `known`.

    Args:
        name: the contig's name as given.
        where: the start of the message, such as "FILE, line N".
        known: the reference's contigs.
    """
    some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    listed = f", which has {some}" if some else ""
    return f"{where}: contig {name!r} is not in the reference{listed}"


def _split_list(spec: str, resolve: Resolve) -> list[str]:
    """Return the regions of a list separated by commas; numbers may hold commas as well."""
    if resolve(spec) is not None:
        return [spec]
    regions: list[str] = []
    for part in spec.split(","):
        continues = regions and _GROUPED.search(regions[-1])
        if continues and _NEXT_GROUP.fullmatch(part):
            regions[-1] += "," + part
        else:
            regions.append(part.strip())
    return regions


# --------------------------------------------------------------------------------------------
# BED


def read_bed(path: str | Path, find: Find) -> dict[str, Spans]:
    """Return the intervals of a BED file by contig, in the file's order, without empty ones.

    Lines that begin with a contig seen before and two plain numbers, which is nearly all of them,
    take 1.4 us each; all others are looked at more closely.

    Args:
        path: the file, or its URL in an object store, plain or compressed with gzip or bgzip.
        find: called once for each contig name; returns the contig's name in the result.

    Raises:
        DataError: a line that is not BED, or an error of `find`.
        NoInput: a file that does not exist, cannot be read, or holds no interval.
    """
    with RawInput(str(path), needed="a BED file") as raw:
        text = b"".join(pieces(raw, threads=1)).removeprefix(b"\xef\xbb\xbf")
    by_contig: dict[str, tuple[list[int], list[int]]] = {}
    by_name: dict[bytes, tuple[list[int], list[int]]] = {}
    for number, line in enumerate(text.replace(b"\r\n", b"\n").split(b"\n"), start=1):
        fields = line.split(b"\t", 3)
        usual = len(fields) > 2 and fields[0] in by_name
        if not (usual and _is_plain(fields[1]) and _is_plain(fields[2])):
            fields = _fields(line, header_may_come=not by_name)
            if not fields:
                continue
            where = f"{path}, line {number}"
            _check_numbers(fields, where)
            if fields[0] not in by_name:
                contig = find(fields[0].decode("utf-8", "replace"), where)
                by_name[fields[0]] = by_contig.setdefault(contig, ([], []))
        start, end = int(fields[1]), int(fields[2])
        if start < end:
            starts, ends = by_name[fields[0]]
            starts.append(start)
            ends.append(end)
        elif start > end:
            raise DataError(
                f"{path}, line {number}: start {start} is greater than end {end}", "swap them"
            )
    if not any(starts for starts, _ in by_contig.values()):
        raise NoInput(
            f"{path} holds no interval", "give a BED file with the columns contig, start, end"
        )
    arrays = {contig: np.array(spans, dtype=np.int64) for contig, spans in by_contig.items()}
    return {contig: (starts, ends) for contig, (starts, ends) in arrays.items() if len(starts)}


def _is_plain(number: bytes) -> bool:
    return number.isdigit() and len(number) <= _DIGITS


def _fields(line: bytes, *, header_may_come: bool) -> list[bytes]:
    """Return the fields of a BED line; none if it is blank, a comment, or for a browser.

    Args:
        line: without its newline.
        header_may_come: whether the line may hold column names, which some tables begin with.
    """
    fields = line.rstrip(b"\r").split(b"\t") if b"\t" in line else line.split()
    word = (fields[0].split() or [b""])[0] if fields else b""
    if word.startswith(b"#") or word in (b"track", b"browser") or not b"".join(fields).strip():
        return []
    if header_may_come and len(fields) > 2 and fields[1].lower() in (b"start", b"chromstart"):
        return []
    return fields


def _check_numbers(fields: list[bytes], where: str) -> None:
    """Raise DataError unless the fields of a line have a start and an end."""
    if len(fields) < 3:
        raise DataError(
            f"{where}: {len(fields)} columns; BED has at least 3 (contig, start, end)",
            "separate them by tabs",
        )
    for column in fields[1:3]:
        if not _NUMBER.fullmatch(column):
            shown = column[:40].decode("utf-8", "replace")
            raise DataError(f"{where}: {shown!r} is not a whole number, which BED needs there")
    if int(fields[1]) < 0:
        raise DataError(f"{where}: start {int(fields[1])} is negative, but BED counts from 0")
