"""Basset's windows, compared with the published loop."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from raygenome.datasets import windows_basset
from raygenome.datasets.packed import unpack_labels
from raygenome.datasets.peaks import Peaks, TargetPeaks, read_table
from raygenome.datasets.splits import Excluded
from raygenome.datasets.windows_basset import WINDOW, Merging, peak_windows
from raygenome.genome.fasta import Reference

Window = tuple[int, frozenset[int]]


def placed(middle: int, length: int, window: int) -> int:
    start = max(0, middle - window // 2)
    return length - window if start + window > length else start


def slow_merge(group: list[Window], length: int, merging: Merging) -> list[Window]:
    """Merge the neighbours that overlap most (the first such pair), found by checking all pairs."""
    while len(group) > 1:
        overlaps = [one[0] + merging.window_size - other[0] for one, other in pairwise(group)]
        best = overlaps.index(max(overlaps))
        if overlaps[best] < merging.overlap:
            break
        pair = group[best : best + 2]
        weights = [1 + len(owners) for _, owners in pair]
        middles = [start + merging.window_size // 2 for start, _ in pair]
        middle = int(0.5 + np.average(middles, weights=weights))
        merged = placed(middle, length, merging.window_size), pair[0][1] | pair[1][1]
        group = [*group[:best], merged, *group[best + 2 :]]
    return group


def slow_windows(peaks: list[TargetPeaks], length: int, merging: Merging) -> list[Window]:
    """Return the windows of a contig peak by peak, without merging equal windows first."""
    windows = [
        (placed((int(start) + int(end)) // 2, length, merging.window_size), frozenset([target]))
        for target, starts, ends in peaks
        for start, end in zip(starts, ends, strict=True)
    ]
    found: list[Window] = []
    group: list[Window] = []
    for window in sorted(windows, key=lambda window: window[0]):
        reach = group[-1][0] + merging.window_size if group else 0
        if group and reach - merging.overlap <= window[0]:
            found += slow_merge(group, length, merging)
            group = []
        group.append(window)
    return found + slow_merge(group, length, merging)


def fast_windows(
    peaks: list[TargetPeaks], length: int, targets: int, merging: Merging
) -> list[Window]:
    found = []
    for starts, bits in peak_windows(peaks, length, targets, merging):
        owners = [frozenset(np.flatnonzero(row).tolist()) for row in unpack_labels(bits, targets)]
        found += list(zip(starts.tolist(), owners, strict=True))
    return found


def random_peaks(
    rng: np.random.Generator, targets: int, length: int, count: int
) -> list[TargetPeaks]:
    peaks = []
    for target in rng.permutation(targets).tolist():
        starts = rng.integers(0, length, int(rng.integers(1, count)))
        peaks.append((target, starts, starts + rng.integers(1, 90, len(starts))))
    return peaks


@pytest.mark.parametrize("merging", [Merging(), Merging(60, 20), Merging(30, 1), Merging(20, 19)])
def test_against_the_published_loop(merging: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_basset, "_CHUNK", 7)
    rng = np.random.default_rng(2)
    for _ in range(60):
        targets, length = int(rng.integers(1, 20)), int(rng.integers(merging.window_size, 12_000))
        peaks = random_peaks(rng, targets, length, int(rng.choice([2, 5, 20])))
        found = fast_windows(peaks, length, targets, merging)
        assert found == slow_windows(peaks, length, merging)


def test_by_hand() -> None:
    peaks = [
        (0, np.array([900, 5_000]), np.array([1_101, 5_002])),
        (1, np.array([1_203]), np.array([1_204])),
    ]
    # Midpoints 1000 and 1203, of equal weight, become 1101.5, that is 1102; 5001 is alone.
    expected = [(802, frozenset([0, 1])), (4_701, frozenset([0]))]
    assert fast_windows(peaks, 100_000, 2, Merging()) == expected


def test_weights_are_targets_not_peaks() -> None:
    peaks = [
        (0, np.array([1_000, 1_000]), np.array([1_001, 1_001])),
        (1, np.array([1_000]), np.array([1_001])),
        (2, np.array([1_050]), np.array([1_051])),
    ]
    # 1000 with two targets weighs 3, 1050 weighs 2.
    assert fast_windows(peaks, 9_000, 3, Merging()) == [(720, frozenset([0, 1, 2]))]


def test_an_overlap_of_just_so_many_bases() -> None:
    def starts(*middles: int) -> list[int]:
        at = np.array(middles)
        return [start + 300 for start, _ in fast_windows([(0, at, at + 1)], 99_999, 1, Merging())]

    # An overlap of 200 bases does not join a group, but merges windows within one.
    assert starts(1_000, 1_400) == [1_000, 1_400]
    assert starts(1_000, 1_399) == [1_200]
    assert starts(1_000, 1_010, 1_405) == [1_205]


def test_at_the_ends() -> None:
    peaks = [(0, np.array([0, 999, 5]), np.array([2, 1_000, 9]))]
    assert fast_windows(peaks, 1_300, 1, Merging()) == [(0, frozenset([0])), (699, frozenset([0]))]
    assert [start for start, _ in fast_windows(peaks, 1_000, 1, Merging())] == [0, 400]
    near = [(0, np.array([0, 998]), np.array([2, 999]))]
    assert fast_windows(near, 999, 1, Merging()) == [(200, frozenset([0]))]
    assert fast_windows(peaks, WINDOW - 1, 1, Merging()) == []
    assert fast_windows([], 9_000, 1, Merging()) == []


def test_many_targets_in_one_window() -> None:
    targets = 919
    rng = np.random.default_rng(4)
    peaks = [(t, rng.integers(1_000, 1_300, 2), np.full(2, 1_301)) for t in range(targets)]
    assert fast_windows(peaks, 9_000, targets, Merging()) == slow_windows(peaks, 9_000, Merging())


def test_real_peaks(real_data: Path) -> None:
    folder = real_data / "hg19"
    reference = Reference.open(folder / "genome" / "hg19_mini.fa.gz")
    table = read_table(folder / "peaks.tsv")
    picked = [target.target for target in table.targets if target.category == "DNase"]
    files = [table.files[number] for number in picked]
    assert len(files) == 4
    contigs = reference.contigs
    with Peaks.read(files, contigs, Excluded([], contigs)) as peaks:
        for contig, length in contigs.items():
            there = list(peaks.on(contig))
            found = fast_windows(there, length, 4, Merging())
            assert found == slow_windows(there, length, Merging())
