"""Finds the windows of a whole genome by a recipe, sorts them into splits and keeps them on disk.

One contig at a time is in memory. The windows go to temporary files, one per split, with their
labels packed as they will be in the dataset.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from raygenome.datasets import windows_basset, windows_deepsea
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.negatives import draw_negatives
from raygenome.datasets.packed import count_positives, label_bytes
from raygenome.datasets.peaks import Peaks, PeakTable, temporary_room
from raygenome.datasets.splits import STRADDLES, Excluded, Splits
from raygenome.errors import DataError
from raygenome.genome.fasta import Reference
from raygenome.progress.bars import NoProgress, Progress

#: Bases per window, by recipe.
RECIPES = {"basset": windows_basset.WINDOW, "deepsea": windows_deepsea.WINDOW}

#: Starts of windows, and their packed labels: int64 (n,), uint8 (n, bytes).
_Block = tuple[np.ndarray, np.ndarray]


class WindowPlan(NamedTuple):
    """Which windows to find.

    Attributes:
        recipe: one of `RECIPES`.
        reference: the genome.
        table: the targets and their peak files.
        splits: the regions of validation and test.
        excluded: the regions to leave out.
        keep: "tf" or "any": whose peaks keep a bin, in DeepSEA's recipe.
        negatives: how many windows outside every peak to add.
        seed: seed of the random choice of negatives.
    """

    recipe: str
    reference: Reference
    table: PeakTable
    splits: Splits
    excluded: Excluded
    keep: str
    negatives: int
    seed: int

    @property
    def window_size(self) -> int:
        """Bases per window."""
        return RECIPES[self.recipe]


class FoundWindows:
    """Windows by split, in genome order; to be used in a with statement.

    Attributes:
        peaks: how many peaks the windows come from.
        excluded_peaks: how many more peaks were left out.
        excluded: windows left out because they overlap an excluded region.
        straddling: windows left out because they cross the border of a split.
        short_contigs: contigs that have peaks but are shorter than a window.
        peak_windows: number of windows on peaks, by split.
        negatives: number of windows outside every peak, by split.
        positives: number of positive windows per target, int64 (T,).
    """

    def __init__(self, n_targets: int) -> None:
        self.peaks = self.excluded_peaks = 0
        self.excluded = self.straddling = self.short_contigs = 0
        self.peak_windows, self.negatives = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.positives = np.zeros(n_targets, dtype=np.int64)
        labels = ("labels", "u1", (label_bytes(n_targets),))
        #: `contig` is its number in the FASTA.
        self._record = np.dtype([("contig", "i4"), ("start", "i8"), ("negative", "?"), labels])
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
        return self.peak_windows[split] + self.negatives[split]

    def read(self, split: str, first: int, count: int) -> np.ndarray:
        """Return windows [first, first + count) of a split, fewer at its end.

        Returns:
            One record per window: contig (its number in the FASTA), start, negative, labels
            (packed).
        """
        file = self._files[SPLITS.index(split)]
        file.seek(first * self._record.itemsize)
        return np.frombuffer(file.read(count * self._record.itemsize), dtype=self._record)

    def add(self, contig: int, block: _Block, negative: np.ndarray, split: np.ndarray) -> None:
        """Keep windows that follow those kept before.

        Args:
            contig: its number in the FASTA.
            block: their starts and labels.
            negative: which of them are negatives, bool (n,).
            split: the split of each, as `Splits.of` returns it; windows that straddle are not kept.
        """
        records = np.empty(len(split), dtype=self._record)
        records["contig"], records["negative"] = contig, negative
        records["start"], records["labels"] = block
        for number, name in enumerate(SPLITS):
            rows = split == number
            self._files[number].write(records[rows].tobytes())
            self.negatives[name] += int((rows & negative).sum())
            self.peak_windows[name] += int((rows & ~negative).sum())
            self.positives += count_positives(block[1][rows], len(self.positives))

    def flush(self) -> None:
        """Write the buffers to disk, so that a full disk is reported now."""
        for file in self._files:
            file.flush()

    def counts(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "peaks": self.peaks,
            "peaks_excluded": self.excluded_peaks,
            "peak_windows": self.peak_windows,
            "negatives": self.negatives,
            "straddling": self.straddling,
            "excluded": self.excluded,
            "short_contigs": self.short_contigs,
        }


@contextlib.contextmanager
def find_windows(plan: WindowPlan, progress: Progress | None = None) -> Iterator[FoundWindows]:
    """Find the windows of a genome; they exist within the with statement.

    Raises:
        DataError: peaks are wrong, a split is empty, a target has no positive, or there is no room
            for so many negatives.
        NoInput: a peak file cannot be read, or holds no peak.
        StorageError: the temporary files cannot be written.
    """
    progress = progress or NoProgress()
    contigs = plan.reference.contigs
    with FoundWindows(len(plan.table.targets)) as found:
        with (
            temporary_room(),
            Peaks.read(plan.table.files, contigs, plan.excluded, progress) as peaks,
        ):
            plan.excluded.check_met()
            found.peaks, found.excluded_peaks = peaks.count, peaks.excluded
            negatives = _draw(plan, peaks, progress)
            progress.begin("finding windows", len(contigs), unit="contigs")
            try:
                for number, contig in enumerate(contigs):
                    found.short_contigs += peaks.has(contig) and contigs[contig] < plan.window_size
                    starts = negatives.get(contig, _NO_STARTS)
                    _find_on(plan, peaks, (number, contig), starts, found)
                    progress.update(number + 1)
            finally:
                progress.end()
            found.flush()
        _check(plan, found)
        yield found


_NO_STARTS = np.empty(0, dtype=np.int64)


def _draw(plan: WindowPlan, peaks: Peaks, progress: Progress) -> dict[str, np.ndarray]:
    """Return the starts of the negatives by contig."""
    if not plan.negatives:
        return {}
    return draw_negatives(
        plan.negatives,
        plan.seed,
        plan.window_size,
        reference=plan.reference,
        peaks=peaks,
        excluded=plan.excluded,
        splits=plan.splits,
        progress=progress,
    )


def _find_on(
    plan: WindowPlan, peaks: Peaks, at: tuple[int, str], negatives: np.ndarray, found: FoundWindows
) -> None:
    """Find the windows of one contig, given by its number in the FASTA and its name."""
    number, contig = at
    length = plan.reference.contigs[contig]
    for starts, labels, negative in _with_negatives(
        _peak_windows(plan, peaks, contig, length), negatives, len(plan.table.targets)
    ):
        excluded = plan.excluded.overlaps(contig, starts, starts + plan.window_size)
        split = plan.splits.of(contig, starts, plan.window_size)
        found.excluded += int(excluded.sum())
        found.straddling += int((~excluded & (split == STRADDLES)).sum())
        split[excluded] = STRADDLES
        found.add(number, (starts, labels), negative, split)


def _peak_windows(plan: WindowPlan, peaks: Peaks, contig: str, length: int) -> Iterator[_Block]:
    if plan.recipe == "basset":
        return windows_basset.peak_windows(peaks.on(contig), length, len(plan.table.targets))
    keeping = windows_deepsea.keepers(plan.table.targets, plan.keep)
    return windows_deepsea.peak_windows(lambda: peaks.on(contig), length, keeping)


def _with_negatives(
    blocks: Iterable[_Block], negatives: np.ndarray, n_targets: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks with the negatives merged in by start, and which rows are negatives."""
    done = 0
    for starts, labels in blocks:
        upto = int(np.searchsorted(negatives, starts[-1], side="right"))
        yield _merged(starts, labels, negatives[done:upto])
        done = upto
    if done < len(negatives):
        nothing = np.empty((0, label_bytes(n_targets)), dtype=np.uint8)
        yield _merged(_NO_STARTS, nothing, negatives[done:])


def _merged(
    starts: np.ndarray, labels: np.ndarray, negatives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blank = np.zeros((len(negatives), labels.shape[1]), dtype=np.uint8)
    negative = np.repeat([False, True], [len(starts), len(negatives)])
    every = np.concatenate([starts, negatives])
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate([labels, blank])[order], negative[order]


def _check(plan: WindowPlan, found: FoundWindows) -> None:
    """Refuse windows on which no net can be trained and tested."""
    wanted = {
        "train": True,
        "valid": len(plan.splits.valid) > 0,
        "test": len(plan.splits.test) > 0,
    }
    for split, needed in wanted.items():
        if needed and not found.peak_windows[split]:
            counted = ", ".join(f"{name} {count:,}" for name, count in found.peak_windows.items())
            raise DataError(
                f"the split {split} has no window on a peak (windows: {counted}; left out: "
                f"{found.straddling:,} across a border of splits, {found.excluded:,} excluded)",
                "leave more of the genome for training: reduce --valid, --test and --exclude"
                if split == "train"
                else f"give --{split} regions that have peaks",
            )
    without = [plan.table.targets[i].name for i in np.flatnonzero(found.positives == 0).tolist()]
    if without:
        some = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        raise DataError(
            f"{len(without)} of {len(found.positives)} targets have no positive window: {some}",
            f"take them out of {plan.table.path}",
        )
