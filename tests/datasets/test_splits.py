"""Splits of windows, and excluded regions, compared with a brute force."""

import numpy as np
import pytest

from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.splits import STRADDLES, Excluded, Splits, as_json
from raygenome.errors import DataError, UsageError

CONTIGS = {"chr1": 400, "chr2": 300, "chr3": 100}


def slow_split(valid: np.ndarray, test: np.ndarray, start: int, window: int) -> int:
    """Return the split of a window by the bases of a contig that are in each."""
    inside = slice(max(start, 0), min(start + window, len(valid)))
    if valid[inside].all() or test[inside].all():
        return SPLITS.index("valid" if valid[inside].all() else "test")
    return STRADDLES if valid[inside].any() or test[inside].any() else SPLITS.index("train")


def test_against_bases() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        cuts = np.sort(rng.choice(np.arange(1, 400), 6, replace=False)).tolist()
        first, second = [(cuts[0], cuts[1]), (cuts[4], cuts[5])], [(cuts[2], cuts[3])]
        if rng.random() < 0.3:
            second[0] = (cuts[1] + 1, cuts[3])  # they touch
        splits = Splits(
            [f"chr1:{a}-{b}" for a, b in first] + ["chr3"],
            [",".join(f"1:{a}-{b}" for a, b in second)],
            CONTIGS,
        )
        owned = np.zeros((2, 400), dtype=bool)
        for row, spans in enumerate((first, second)):
            for a, b in spans:
                owned[row, a - 1 : b] = True
        starts = np.sort(rng.integers(-20, 395, 100))
        found = splits.of("chr1", starts, 30)
        assert found.tolist() == [slow_split(*owned, start, 30) for start in starts.tolist()]


def test_whole_contigs() -> None:
    splits = Splits(["chr2"], ["3"], CONTIGS)
    starts = np.array([-15, 0, 290, 90])
    assert splits.of("chr1", starts, 30).tolist() == [0] * 4
    assert splits.of("chr2", starts, 30).tolist() == [1] * 4
    assert splits.of("chr3", starts[[0, 1, 3]], 30).tolist() == [2] * 3
    assert Splits([], [], CONTIGS).of("chr2", starts, 30).tolist() == [0] * 4


def test_no_two_windows_of_two_splits_overlap() -> None:
    splits = Splits(["chr1:101-200"], ["chr1:201-300"], CONTIGS)
    starts = np.arange(-10, 390)
    found = splits.of("chr1", starts, 24)
    for one in range(3):
        for other in range(one):
            apart = np.abs(starts[found == one][:, None] - starts[found == other]) >= 24
            assert apart.all()
    assert [(found == split).sum() for split in (0, 1, 2)] == [87 + 90, 77, 77]


def test_refuses_overlapping_splits() -> None:
    with pytest.raises(UsageError, match=r"--valid chr1:11-20 overlaps --test"):
        Splits(["chr1:11-20"], ["chr1:20-30"], CONTIGS)
    with pytest.raises(UsageError, match=r"--valid chr2 overlaps --test"):
        Splits(["chr1:1-5", "chr2"], ["2:7-"], CONTIGS)


def test_refuses_what_is_no_region() -> None:
    with pytest.raises(DataError, match="contig 'chr9' is not in the reference, which has chr1"):
        Splits(["chr9"], [], CONTIGS)
    with pytest.raises(UsageError, match="empty"):
        Splits([], ["chr1:5-4"], CONTIGS)


def test_excluded() -> None:
    excluded = Excluded(["chr1:11-20,chr2", "chrM"], CONTIGS)
    start = np.array([0, 19, 20])
    assert excluded.overlaps("chr1", start, start + 5).tolist() == [False, True, False]
    assert excluded.overlaps("chr2", start, start + 5).all()
    assert not excluded.overlaps("chr3", start, start + 5).any()
    assert excluded.covers("chr1", np.array([9, 10]), np.array([12, 20])).tolist() == [False, True]
    assert excluded.covers("chrM", start, start + 5).all()
    with pytest.raises(DataError, match="--exclude chrM: neither"):
        excluded.check_met()
    assert (excluded.left_out("MT"), excluded.left_out("chrY")) == ("chrM", None)
    excluded.check_met()
    assert excluded.to_json() == [["chr1", 10, 20], ["chr2", 0, None], ["chrM"]]


def test_refuses_what_cannot_be_excluded() -> None:
    with pytest.raises(DataError, match=r"--exclude chrM:2-9: contig 'chrM' is not in the ref"):
        Excluded(["chrM:2-9"], CONTIGS)
    with pytest.raises(UsageError, match="empty"):
        Excluded(["chr1:0"], CONTIGS)


def test_plain_values() -> None:
    splits = Splits(["chr2:5-", "chr1:3-4"], [], CONTIGS)
    assert as_json(splits.valid) == [["chr1", 2, 4], ["chr2", 4, None]]
