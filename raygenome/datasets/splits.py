"""Assigns windows to splits, and leaves out excluded regions of the genome."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from raygenome.datasets.manifest import SPLITS
from raygenome.errors import DataError, UsageError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.intervals import OPEN_END, Regions, load_regions

#: A window that crosses the border of a split, and so belongs to none.
STRADDLES = -1
_TRAIN, _VALID, _TEST = (SPLITS.index(name) for name in ("train", "valid", "test"))

#: A contig's name that cannot be a region string: without colon and comma.
_BARE_NAME = re.compile(r"[^:,\s]+")


class Splits:
    """The regions of validation and test; the rest of the genome is for training.

    Args:
        valid: region strings or contigs, as `intervals.load_regions` takes them.
        test: the same; no base may be in both.
        contigs: lengths of the reference's contigs, by name.

    Attributes:
        valid: the regions of validation, with the reference's names of contigs.
        test: the regions of the test split.

    Raises:
        UsageError: a string is not a region, or a region of `valid` overlaps one of `test`.
        DataError: the reference does not have a contig.
    """

    def __init__(self, valid: Sequence[str], test: Sequence[str], contigs: dict[str, int]) -> None:
        self._lengths = contigs
        resolve = ContigMap(contigs).resolve
        self.valid = load_regions(valid, [], resolve, known=list(contigs))
        self.test = load_regions(test, [], resolve, known=list(contigs))
        for region in self.valid.intervals():
            if self.test.overlaps(region.contig, *np.array([[region.start], [region.end]]))[0]:
                raise UsageError(
                    f"--valid {region} overlaps --test; a window may be in one split only",
                    "give regions that do not overlap",
                )

    def of(self, contig: str, start: np.ndarray, window_size: int) -> np.ndarray:
        """Return the split of windows: int8 (n,), an index of `SPLITS`, or STRADDLES.

        A window is for validation (or test) if all of its bases on the contig are in one region of
        validation (or test). It is for training if none of its bases is in any of these regions.

        Args:
            contig: its name in the reference.
            start: 0-based starts, (n,); windows may hang over the contig's ends.
            window_size: bases per window.
        """
        first = np.maximum(start, 0)
        last = np.minimum(start + window_size, self._lengths[contig])
        split = np.full(len(start), _TRAIN, dtype=np.int8)
        for number, regions in ((_VALID, self.valid), (_TEST, self.test)):
            split[regions.overlaps(contig, first, last)] = STRADDLES
            split[regions.covers(contig, first, last)] = number
        return split


class Excluded:
    """Contigs and regions whose peaks and windows are left out.

    Args:
        specs: region strings or contigs. A contig may be missing in the reference; then a peak
            file must name it, see `check_met`.
        contigs: names of the reference's contigs.

    Attributes:
        regions: the excluded regions of the reference.

    Raises:
        UsageError: a string is not a region.
        DataError: a region is on a contig that the reference does not have.
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
                    f"--exclude {region}: contig {region.contig!r} is not in the reference",
                    f"exclude the whole contig with --exclude {region.contig}",
                )
        self._others = ContigMap(contig for contig, _, _ in elsewhere)
        self._met: set[str] = set()

    def left_out(self, name: str) -> str | None:
        """Return the excluded contig named `name` that the reference lacks; None if none."""
        found = self._others.resolve(name)
        if found is not None:
            self._met.add(found)
        return found

    def overlaps(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which intervals [start, end) share a base with an excluded region."""
        return self.regions.overlaps(contig, start, end)

    def covers(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which intervals [start, end) lie entirely in an excluded region."""
        if contig in self._others.contigs:
            return np.ones(len(start), dtype=bool)
        return self.regions.covers(contig, start, end)

    def check_met(self) -> None:
        """Refuse an excluded contig that neither the reference nor any peak file has.

        Raises:
            DataError: there is such a contig, most likely a typo.
        """
        for contig in self._others.contigs:
            if contig not in self._met:
                raise DataError(
                    f"--exclude {contig}: neither the reference nor any peak file has this contig",
                    "correct its name, or drop the option",
                )

    def to_json(self) -> list[list[object]]:
        """Return the excluded regions as plain values."""
        elsewhere: list[list[object]] = [[contig] for contig in sorted(self._others.contigs)]
        return as_json(self.regions) + elsewhere


def as_json(regions: Regions) -> list[list[object]]:
    """Return regions as plain values: contig, start, and end, which is None for an open end."""
    return [
        [contig, start, None if end == OPEN_END else end]
        for contig, start, end in regions.intervals()
    ]
