"""Which split a window belongs to, and which parts of the genome are left out altogether."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from raygenome.datasets.manifest import SPLITS
from raygenome.errors import DataError, UsageError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.intervals import OPEN_END, Regions, load_regions

#: A window that touches a split without lying in it, and so belongs to none.
STRADDLES = -1
_TRAIN, _VALID, _TEST = (SPLITS.index(name) for name in ("train", "valid", "test"))

#: A name of a contig that no region string is: without colon and comma.
_BARE_NAME = re.compile(r"[^:,\s]+")


class Splits:
    """The regions of validation and test; all else is for training.

    Args:
        valid: region strings or contigs, as `intervals.load_regions` takes them.
        test: the same; no base may be in both.
        contigs: the reference's, with their lengths.

    Attributes:
        valid: the regions of validation, by the reference's names.
        test: the regions of the test.

    Raises:
        UsageError: a string that is no region, or regions that overlap across the two.
        DataError: a contig that the reference lacks.
    """

    def __init__(self, valid: Sequence[str], test: Sequence[str], contigs: dict[str, int]) -> None:
        self._lengths = contigs
        resolve = ContigMap(contigs).resolve
        self.valid = load_regions(valid, [], resolve, known=list(contigs))
        self.test = load_regions(test, [], resolve, known=list(contigs))
        for region in self.valid.intervals():
            if self.test.overlaps(region.contig, *np.array([[region.start], [region.end]]))[0]:
                raise UsageError(
                    f"--valid {region} overlaps --test; a window may be in one "
                    "split only: give regions that are apart"
                )

    def of(self, contig: str, start: np.ndarray, window: int) -> np.ndarray:
        """Return the split of windows: int8 (n,), an index of `SPLITS`, or STRADDLES.

        A window is for validation or test if all of it that lies on the contig is in one of the
        split's regions, and for training if none of it is in a region of either.

        Args:
            contig: the reference's name for it.
            start: 0-based starts, (n,); windows may hang over the contig's ends.
            window: bases of each.
        """
        first = np.maximum(start, 0)
        last = np.minimum(start + window, self._lengths[contig])
        split = np.full(len(start), _TRAIN, dtype=np.int8)
        for number, regions in ((_VALID, self.valid), (_TEST, self.test)):
            split[regions.overlaps(contig, first, last)] = STRADDLES
            split[regions.covers(contig, first, last)] = number
        return split


class Excluded:
    """Contigs and regions of which no peak and no window is wanted.

    Args:
        specs: region strings or contigs. A contig may be one that the reference lacks, and is
            then for peak files to name.
        contigs: the reference's.

    Attributes:
        regions: what is excluded of the reference.

    Raises:
        UsageError: a string that is no region.
        DataError: a region on a contig that the reference lacks.
    """

    def __init__(self, specs: Sequence[str], contigs: Iterable[str]) -> None:
        known = ContigMap(contigs)

        def resolve(name: str) -> str | None:
            return known.resolve(name) or (name if _BARE_NAME.fullmatch(name) else None)

        found = list(load_regions(specs, [], resolve, known=known.contigs).intervals())
        self.regions = Regions(interval for interval in found if interval[0] in known.contigs)
        elsewhere = [interval for interval in found if interval[0] not in known.contigs]
        for region in elsewhere:
            if (region.start, region.end) != (0, OPEN_END):
                raise DataError(
                    f"--exclude {region}: contig {region.contig!r} is not in the "
                    "reference; such a contig can be left out as a whole"
                )
        self._others = ContigMap(contig for contig, _, _ in elsewhere)
        self._met: set[str] = set()

    def left_out(self, name: str) -> str | None:
        """Return the excluded contig, none of the reference, that `name` means; else None."""
        found = self._others.resolve(name)
        if found is not None:
            self._met.add(found)
        return found

    def overlaps(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the stretches [start, end) share a base with what is excluded."""
        return self.regions.overlaps(contig, start, end)

    def covers(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which of the stretches [start, end) lie wholly in what is excluded."""
        if contig in self._others.contigs:
            return np.ones(len(start), dtype=bool)
        return self.regions.covers(contig, start, end)

    def check_met(self) -> None:
        """Refuse a contig that neither the reference nor any peak file has: a slip of the pen.

        Raises:
            DataError: there is one.
        """
        for contig in self._others.contigs:
            if contig not in self._met:
                raise DataError(
                    f"--exclude {contig}: neither the reference nor any peak file has such a "
                    "contig; leave it out or correct its name"
                )

    def to_json(self) -> list[list[object]]:
        """Return what is excluded as plain values."""
        elsewhere: list[list[object]] = [[contig] for contig in sorted(self._others.contigs)]
        return as_json(self.regions) + elsewhere


def as_json(regions: Regions) -> list[list[object]]:
    """Return regions as plain values: contig, start, and end, which is None for an open one."""
    return [
        [contig, start, None if end == OPEN_END else end]
        for contig, start, end in regions.intervals()
    ]
