"""DeepSEA's windows against a flag for every base."""

import numpy as np
import pytest

from raygenome.datasets.packed import unpack_labels
from raygenome.datasets.peaks import TargetPeaks
from raygenome.datasets.windows_deepsea import (
    BIN,
    WINDOW,
    coverage,
    keepers,
    peak_windows,
    resolve_keep,
)
from raygenome.errors import DataError, UsageError
from raygenome.genome.targets import Target


def slow_windows(
    peaks: list[TargetPeaks], length: int, keeping: np.ndarray
) -> list[tuple[int, list[int]]]:
    inside = np.zeros((len(keeping), length), dtype=bool)
    for target, starts, ends in peaks:
        for start, end in zip(starts, ends, strict=True):
            inside[target, start:end] = True
    found = []
    for begin in range(0, length - length % BIN, BIN):
        bases = inside[:, begin : begin + BIN]
        if bases[keeping].any():
            labels = (bases.sum(axis=1) > BIN / 2).astype(int).tolist()
            found.append((begin - (WINDOW - BIN) // 2, labels))
    return found


def fast_windows(
    peaks: list[TargetPeaks], length: int, keeping: np.ndarray
) -> list[tuple[int, list[int]]]:
    found = []
    for starts, bits in peak_windows(lambda: iter(peaks), length, keeping):
        labels = unpack_labels(bits, len(keeping)).tolist()
        found += list(zip(starts.tolist(), labels, strict=True))
    return found


@pytest.mark.parametrize("longest", [30, 250, 3_000])
def test_against_bases(longest: int) -> None:
    rng = np.random.default_rng(longest)
    for _ in range(60):
        targets, length = int(rng.integers(1, 12)), int(rng.integers(WINDOW, 20_000))
        peaks = []
        for target in range(targets):
            starts = rng.integers(0, length, int(rng.integers(0, 15)))
            peaks.append((target, starts, starts + rng.integers(1, longest, len(starts))))
        keeping = rng.random(targets) < 0.5
        assert fast_windows(peaks, length, keeping) == slow_windows(peaks, length, keeping)


def test_half_is_not_enough() -> None:
    def labels(*spans: tuple[int, int]) -> list[tuple[int, list[int]]]:
        starts, ends = np.array(spans).T
        return fast_windows([(0, starts, ends)], 2_000, np.array([True]))

    assert labels((400, 500)) == [(0, [0])]
    assert labels((400, 501)) == [(0, [1])]
    # Bases in several peaks count once; separate peaks add up.
    assert labels((400, 480), (420, 500)) == [(0, [0])]
    assert labels((400, 480), (560, 581)) == [(0, [1])]
    # One base keeps a bin.
    assert labels((399, 401)) == [(-200, [0]), (0, [0])]


def test_only_keepers_keep() -> None:
    peaks = [
        (0, np.array([1_000]), np.array([1_200])),
        (1, np.array([1_150]), np.array([1_601])),
    ]
    assert fast_windows(peaks, 4_000, np.array([True, False])) == [(600, [1, 0])]
    assert fast_windows(peaks, 4_000, np.array([False, True])) == [
        *[(600, [1, 0]), (800, [0, 1])],
        *[(1_000, [0, 1]), (1_200, [0, 0])],
    ]
    assert fast_windows(peaks, 4_000, np.array([False, False])) == []


def test_at_the_ends() -> None:
    peaks = [(0, np.array([0, 1_100]), np.array([150, 1_390]))]
    keeping = np.array([True])
    assert fast_windows(peaks, 1_399, keeping) == [(-400, [1]), (600, [0])]
    assert fast_windows(peaks, 1_400, keeping) == [(-400, [1]), (600, [0]), (800, [1])]
    assert fast_windows(peaks, WINDOW - 1, keeping) == []


def test_coverage() -> None:
    starts, ends = np.array([790, 150, 390]), np.array([9_999, 410, 400])
    touched, covered = coverage(starts, ends, 5)
    assert touched.tolist() == [0, 1, 2, 3, 4]
    assert covered.tolist() == [50, 200, 10, 10, 200]
    assert coverage(np.array([1_000]), np.array([1_001]), 5)[0].tolist() == []


def test_who_keeps() -> None:
    targets = [Target(i, f"t{i}", "", "", "", kind) for i, kind in enumerate(("DNase", "TF", ""))]
    assert [resolve_keep(targets, keep) for keep in ("auto", "tf", "any")] == ["tf", "tf", "any"]
    assert keepers(targets, "tf").tolist() == [False, True, False]
    assert keepers(targets, "any").all()
    assert resolve_keep(targets[::2], "auto") == "any"
    with pytest.raises(DataError, match="--keep any"):
        resolve_keep(targets[::2], "tf")
    with pytest.raises(UsageError, match="auto, tf, any"):
        resolve_keep(targets, "all")
