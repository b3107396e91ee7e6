"""Parts of the genome that the user asked for: `chr20:1,000-2,000` and BED files.

A region string is 1-based and includes its last base, as in bcftools; BED is 0-based and
half-open, which is also how everything is kept here.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.storage.bgzf import pieces
from raygenome.storage.input import RawInput

#: Finds the reference's contig for a name of any style; None if there is none.
Resolve = Callable[[str], str | None]
#: A contig, and a 0-based half-open stretch of it.
Interval = tuple[str, int, int]

#: The end of a region that has none: beyond every contig, and safe to calculate with.
OPEN_END = 1 << 60

_SPAN = re.compile(r"([0-9][0-9,]*)(?:(-)([0-9][0-9,]*)?)?")
#: The end of a region whose last number may go on behind a comma, and how it then goes on.
_GROUPED = re.compile(r":([0-9,]+-)?[0-9]{1,3}(,[0-9]{3})*$")
_NEXT_GROUP = re.compile(r"[0-9]{3}(-[0-9]{0,3})?")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Regions:
    """Sorted, merged intervals of each contig.

    Args:
        intervals: (contig, start, end), 0-based half-open, none empty, in any order; they may
            overlap.
    """

    def __init__(self, intervals: Iterable[Interval]) -> None:
        by_contig: dict[str, list[tuple[int, int]]] = {}
        for contig, start, end in intervals:
            by_contig.setdefault(contig, []).append((start, end))
        self._merged = {contig: _merge(by_contig[contig]) for contig in sorted(by_contig)}

    def __len__(self) -> int:
        """Return how many intervals there are, once merged."""
        return sum(len(starts) for starts, _ in self._merged.values())

    def intervals(self) -> Iterator[Interval]:
        """Yield the merged intervals, by contig name and start."""
        for contig, (starts, ends) in self._merged.items():
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                yield contig, start, end

    def overlaps(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the stretches [start, end) of `contig` share a base with any interval.

        Args:
            contig: the reference's name for it.
            start: 0-based, (n,).
            end: (n,); a stretch of no bases overlaps nothing.

        Returns:
            bool (n,).
        """
        if contig not in self._merged:
            return np.zeros(len(start), dtype=bool)
        starts, ends = self._merged[contig]
        # Intervals are apart and sorted, so of those that end beyond `start` the first decides.
        first = np.searchsorted(ends, start, side="right")
        begins = np.append(starts, np.iinfo(np.int64).max)[first]
        return np.asarray((begins < end) & (start < end))

    def covers(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the stretches [start, end) of `contig` lie wholly in one interval.

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
        """Return a sha256 (hexadecimal) of the bases covered, however they were asked for."""
        lines = (f"{contig}\t{start}\t{end}\n" for contig, start, end in self.intervals())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_regions(
    specs: Sequence[str], beds: Sequence[str | Path], resolve: Resolve, *, known: Sequence[str] = ()
) -> Regions:
    """Return the union of region strings and BED files, under the reference's contig names.

    Args:
        specs: as `parse_region` takes them, or several separated by commas.
        beds: BED files, or their URLs in an object store, plain or compressed with gzip or bgzip.
        resolve: finds the reference's contig for a name of any style.
        known: the reference's contigs, of which messages name some.

    Raises:
        UsageError: a region string is not of the form that it must have.
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
        intervals.extend(read_bed(bed, find))
    return Regions(intervals)


def parse_region(text: str, resolve: Resolve, *, known: Sequence[str] = ()) -> Interval:
    """Return a region string as (contig, start, end), 0-based half-open.

    "chr20" is the whole contig, "chr20:1000" the one base (as in bcftools), "chr20:1,000-2,000"
    both bases and all between them, "chr20:1000-" all from there on. A contig that is named just
    like `text`, colons included, wins, since HLA-A*01:01 is one.

    Args:
        text: the region.
        resolve: as for `load_regions`.
        known: as for `load_regions`.

    Raises:
        UsageError: the text is not a region, or one of no bases.
        DataError: its contig is unknown.
    """
    contig = resolve(text)
    if contig is not None:
        return contig, 0, OPEN_END
    name, _, span = text.rpartition(":")
    found = _SPAN.fullmatch(span) if name else None
    if not text or (name and found is None and resolve(name) is not None):
        raise UsageError(
            f"the region {text!r} is not of the form chr20, chr20:1000, chr20:1,000-2,000 or "
            "chr20:1000-"
        )
    contig = _finder(resolve, known)(name if found else text, f"the region {text!r}")
    if found is None:
        return contig, 0, OPEN_END
    first = last = _plain(found[1])
    if found[2]:
        last = _plain(found[3]) if found[3] else OPEN_END
    if not 1 <= first <= last <= OPEN_END:
        raise UsageError(
            f"the region {text!r} is empty: positions count from 1, and the last must not be "
            "below the first"
        )
    return contig, first - 1, last


def _plain(number: str) -> int:
    return int(number.replace(",", ""))


def _finder(resolve: Resolve, known: Sequence[str]) -> Callable[[str, str], str]:
    """Return `resolve` with an error, that begins with its second argument, for unknown names."""

    def find(name: str, where: str) -> str:
        contig = resolve(name)
        if contig is None:
            some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
            there = f", which has {some}" if some else ""
            raise DataError(f"{where}: contig {name!r} is not in the reference{there}")
        return contig

    return find


def _split_list(spec: str, resolve: Resolve) -> list[str]:
    """Return the regions of a list separated by commas, which numbers may hold as well."""
    if resolve(spec) is not None:
        return [spec]
    regions: list[str] = []
    for part in spec.split(","):
        goes_on = regions and _GROUPED.search(regions[-1])
        if goes_on and _NEXT_GROUP.fullmatch(part):
            regions[-1] += "," + part
        else:
            regions.append(part.strip())
    return regions


def read_bed(path: str | Path, find: Callable[[str, str], str]) -> list[Interval]:
    """Return the intervals of a BED file in its order, but for those of no bases.

    Args:
        path: the file, or its URL in an object store, plain or compressed with gzip or bgzip.
        find: given a contig's name and "FILE, line N", once for each name, returns what it is
            called in the result.

    Raises:
        DataError: a line that is not BED.
        NoInput: a file that does not exist, cannot be read, or holds no interval.
    """
    with RawInput(str(path), needed="a BED file") as raw:
        text = b"".join(pieces(raw, threads=1)).decode("utf-8-sig", "replace")
    contigs: dict[str, str] = {}
    intervals: list[Interval] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        if _is_no_interval(fields, first=not intervals):
            continue
        where = f"{path}, line {number}"
        start, end = _bed_span(fields, where)
        if fields[0] not in contigs:
            contigs[fields[0]] = find(fields[0], where)
        if start < end:
            intervals.append((contigs[fields[0]], start, end))
    if not intervals:
        raise NoInput(f"{path} holds no interval; a BED file (contig, start, end) is needed")
    return intervals


def _is_no_interval(fields: list[str], *, first: bool) -> bool:
    """Tell whether a line of a BED file is blank, a comment, or for a browser."""
    word = (fields[0].split() or [""])[0] if fields else ""
    if word.startswith("#") or word in ("track", "browser") or not "".join(fields).strip():
        return True
    # Tables that are nearly BED name their columns in the first line.
    return first and len(fields) > 2 and fields[1].lower() in ("start", "chromstart")


def _bed_span(fields: list[str], where: str) -> tuple[int, int]:
    """Return start and end, as in the line."""
    if len(fields) < 3:
        raise DataError(
            f"{where}: {len(fields)} columns; BED has at least 3 (contig, start, end), "
            "separated by tabs"
        )
    for column in fields[1:3]:
        if not _NUMBER.fullmatch(column):
            raise DataError(f"{where}: {column[:40]!r} is not a whole number; BED needs one there")
    start, end = int(fields[1]), int(fields[2])
    if start < 0:
        raise DataError(f"{where}: start {start} is negative; BED counts from 0")
    if start > end:
        raise DataError(f"{where}: start {start} is greater than end {end}; swap them")
    return start, min(end, OPEN_END)


def _merge(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted starts and ends of the union, int64; spans that touch become one."""
    starts, ends = np.array(sorted(spans), dtype=np.int64).T
    reach = np.maximum.accumulate(ends)
    opens = np.concatenate([[True], starts[1:] > reach[:-1]])
    closes = np.concatenate([opens[1:], [True]])
    return starts[opens], reach[closes]
