"""The sites of a whole genome: found by a recipe, sorted into splits, kept on the disk.

A contig at a time is in memory, and what was found goes to temporary files, one a split.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from raygenome.datasets import background, sites_basset, sites_deepsea
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.packing import packed_labels, unpack_labels
from raygenome.datasets.peaks import Peaks, PeakTable, temporary_room
from raygenome.datasets.splits import STRADDLES, Excluded, Splits
from raygenome.errors import DataError
from raygenome.genome.fasta import Reference
from raygenome.progress.bars import NoProgress, Progress

#: Bases of a window, by recipe.
RECIPES = {"basset": sites_basset.WINDOW, "deepsea": sites_deepsea.WINDOW}

#: Rows whose labels are unpacked together.
_UNPACKED = 1 << 13

#: Starts of windows, and their labels as bits: int64 (n,), uint8 (n, bytes).
_Block = tuple[np.ndarray, np.ndarray]


class SitePlan(NamedTuple):
    """What sites are wanted.

    Attributes:
        recipe: one of `RECIPES`.
        reference: the genome.
        table: the targets and their peak files.
        splits: where validation and test are.
        excluded: where nothing is wanted.
        keep: "tf" or "any": whose peaks keep a bin, in DeepSEA's recipe.
        background: how many windows outside every peak are wanted.
        seed: of their draw.
    """

    recipe: str
    reference: Reference
    table: PeakTable
    splits: Splits
    excluded: Excluded
    keep: str
    background: int
    seed: int

    @property
    def window(self) -> int:
        """Bases of a window."""
        return RECIPES[self.recipe]


class FoundSites:
    """Sites by split, in genome order; to be used in a with statement.

    Attributes:
        peaks: how many peaks the sites come from.
        excluded_peaks: how many more were left out.
        excluded: windows that reach into what is excluded.
        straddling: windows that touch a split without lying in it.
        short_contigs: contigs with peaks, but shorter than a window.
        sites: windows by split, those of the background aside.
        background: windows of the background by split.
        positives: windows of each target, int64 (T,).
    """

    def __init__(self, targets: int) -> None:
        self.peaks = self.excluded_peaks = 0
        self.excluded = self.straddling = self.short_contigs = 0
        self.sites, self.background = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.positives = np.zeros(targets, dtype=np.int64)
        self._targets = targets
        labels = ("labels", "u1", (packed_labels(targets),))
        #: `contig` is its number in the FASTA.
        self._record = np.dtype([("contig", "i4"), ("start", "i8"), ("background", "?"), labels])
        with contextlib.ExitStack() as stack:
            self._files = [
                stack.enter_context(tempfile.TemporaryFile(prefix="raygenome-")) for _ in SPLITS
            ]
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def rows(self, split: str) -> int:
        """Return how many windows a split has."""
        return self.sites[split] + self.background[split]

    def read(self, split: str, first: int, count: int) -> np.ndarray:
        """Return windows [first, first + count) of a split, fewer at its end.

        Returns:
            A record each: contig (its number in the FASTA), start, background, labels (bits).
        """
        file = self._files[SPLITS.index(split)]
        file.seek(first * self._record.itemsize)
        return np.frombuffer(file.read(count * self._record.itemsize), dtype=self._record)

    def add(self, contig: int, block: _Block, negative: np.ndarray, split: np.ndarray) -> None:
        """Keep windows that lie behind those before.

        Args:
            contig: its number in the FASTA.
            block: their starts and labels.
            negative: which are of the background, bool (n,).
            split: of each, as `Splits.of` returns it; windows of none are not kept.
        """
        records = np.empty(len(split), dtype=self._record)
        records["contig"], records["background"] = contig, negative
        records["start"], records["labels"] = block
        for number, name in enumerate(SPLITS):
            rows = split == number
            self._files[number].write(records[rows].tobytes())
            self.background[name] += int((rows & negative).sum())
            self.sites[name] += int((rows & ~negative).sum())
            self._count(block[1][rows])

    def _count(self, bits: np.ndarray) -> None:
        """Count the positives of each target, unpacking few rows at a time."""
        for first in range(0, len(bits), _UNPACKED):
            labels = unpack_labels(bits[first : first + _UNPACKED], self._targets)
            self.positives += labels.sum(axis=0, dtype=np.int64)

    def flush(self) -> None:
        """Write what was added, so that an error comes now."""
        for file in self._files:
            file.flush()

    def counts(self) -> dict[str, Any]:
        """Return what was counted, as plain values."""
        return {
            "peaks": self.peaks,
            "peaks_excluded": self.excluded_peaks,
            "sites": self.sites,
            "background": self.background,
            "straddling": self.straddling,
            "excluded": self.excluded,
            "short_contigs": self.short_contigs,
        }


@contextlib.contextmanager
def find_sites(plan: SitePlan, progress: Progress | None = None) -> Iterator[FoundSites]:
    """Find the sites of a genome; they are there within the with statement.

    Raises:
        DataError: peaks are wrong, a split is empty, a target has no positive, or there is no room
            for so much background.
        NoInput: a peak file cannot be read, or holds no peak.
        StorageError: the temporary files cannot be written.
    """
    progress = progress or NoProgress()
    contigs = plan.reference.contigs
    with FoundSites(len(plan.table.targets)) as found:
        with (
            temporary_room(),
            Peaks.read(plan.table.files, contigs, plan.excluded, progress) as peaks,
        ):
            plan.excluded.check_met()
            found.peaks, found.excluded_peaks = peaks.count, peaks.excluded
            negatives = _negatives(plan, peaks, progress)
            progress.begin("sites", len(contigs), unit="contigs")
            try:
                for number, contig in enumerate(contigs):
                    found.short_contigs += peaks.has(contig) and contigs[contig] < plan.window
                    starts = negatives.get(contig, _NO_STARTS)
                    _find_on(plan, peaks, (number, contig), starts, found)
                    progress.update(number + 1)
            finally:
                progress.end()
            found.flush()
        _check(plan, found)
        yield found


_NO_STARTS = np.empty(0, dtype=np.int64)


def _negatives(plan: SitePlan, peaks: Peaks, progress: Progress) -> dict[str, np.ndarray]:
    """Return the starts of the background's windows by contig."""
    if not plan.background:
        return {}
    return background.draw(
        plan.background,
        plan.seed,
        plan.window,
        reference=plan.reference,
        peaks=peaks,
        excluded=plan.excluded,
        splits=plan.splits,
        progress=progress,
    )


def _find_on(
    plan: SitePlan, peaks: Peaks, at: tuple[int, str], negatives: np.ndarray, found: FoundSites
) -> None:
    """Find the sites of one contig, given by its number in the FASTA and its name."""
    number, contig = at
    length = plan.reference.contigs[contig]
    for starts, labels, negative in _with_background(
        _recipe_sites(plan, peaks, contig, length), negatives, len(plan.table.targets)
    ):
        excluded = plan.excluded.overlaps(contig, starts, starts + plan.window)
        split = plan.splits.of(contig, starts, plan.window)
        found.excluded += int(excluded.sum())
        found.straddling += int((~excluded & (split == STRADDLES)).sum())
        split[excluded] = STRADDLES
        found.add(number, (starts, labels), negative, split)


def _recipe_sites(plan: SitePlan, peaks: Peaks, contig: str, length: int) -> Iterator[_Block]:
    if plan.recipe == "basset":
        return sites_basset.sites(peaks.on(contig), length, len(plan.table.targets))
    keeping = sites_deepsea.keepers(plan.table.targets, plan.keep)
    return sites_deepsea.sites(lambda: peaks.on(contig), length, keeping)


def _with_background(
    blocks: Iterable[_Block], negatives: np.ndarray, targets: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of sites with the background's windows in their places, and which those are."""
    done = 0
    for starts, labels in blocks:
        upto = int(np.searchsorted(negatives, starts[-1], side="right"))
        yield _merged(starts, labels, negatives[done:upto])
        done = upto
    if done < len(negatives):
        nothing = np.empty((0, packed_labels(targets)), dtype=np.uint8)
        yield _merged(_NO_STARTS, nothing, negatives[done:])


def _merged(
    starts: np.ndarray, labels: np.ndarray, negatives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blank = np.zeros((len(negatives), labels.shape[1]), dtype=np.uint8)
    negative = np.repeat([False, True], [len(starts), len(negatives)])
    every = np.concatenate([starts, negatives])
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate([labels, blank])[order], negative[order]


def _check(plan: SitePlan, found: FoundSites) -> None:
    """Refuse sites that no net could be trained and judged on."""
    wanted = {
        "train": True,
        "valid": len(plan.splits.valid) > 0,
        "test": len(plan.splits.test) > 0,
    }
    for split, needed in wanted.items():
        if needed and not found.sites[split]:
            counted = ", ".join(f"{name} {count:,}" for name, count in found.sites.items())
            raise DataError(
                f"the split {split} has no site (sites: {counted}; straddling a border "
                f"{found.straddling:,}, excluded {found.excluded:,}); give it regions with peaks"
                if split != "train"
                else f"no site is left to train on (sites: {counted}; straddling a border "
                f"{found.straddling:,}, excluded {found.excluded:,}); give --valid, --test and "
                "--exclude less of the genome"
            )
    without = [plan.table.targets[i].name for i in np.flatnonzero(found.positives == 0).tolist()]
    if without:
        some = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        raise DataError(
            f"{len(without)} of {len(found.positives)} targets have no positive window: {some}; "
            f"take them out of {plan.table.path}"
        )
