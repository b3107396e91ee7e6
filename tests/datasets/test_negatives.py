"""Negatives avoid peaks, Ns, excluded regions and borders; checked with a flag per base."""

from pathlib import Path

import numpy as np
import pytest
from support.builders import random_genome, write_fasta
from support.peak_files import random_peaks, write_table

from raygenome.datasets import negatives
from raygenome.datasets.negatives import draw_negatives, runs_of_n, tiles_between
from raygenome.datasets.peaks import Peaks, read_table
from raygenome.datasets.splits import Excluded, Splits
from raygenome.errors import DataError
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import union

WINDOW = 50


class Case:
    """A random genome with runs of N, with peaks, an excluded region and a test region."""

    def __init__(self, folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        genome = random_genome(seed, chr1=5_000, chr2=40, chr3=3_001)
        for name, start, end in (("chr1", 0, 130), ("chr1", 2_000, 2_001), ("chr3", 2_900, 3_001)):
            genome[name] = genome[name][:start] + "N" * (end - start) + genome[name][end:]
        self.lengths = {name: len(bases) for name, bases in genome.items()}
        sets = {name: random_peaks(rng, self.lengths, 20, longest=120) for name in "ab"}
        self.reference = Reference.open(write_fasta(folder / "g.fa", genome))
        self.excluded = Excluded(["chr1:3,001-3,100"], self.lengths)
        self.splits = Splits([], ["chr1:4,001-4,700"], self.lengths)
        self.files = read_table(write_table(folder, sets)).files
        self.taken = {
            name: np.array([base == "N" for base in bases]) for name, bases in genome.items()
        }
        self.taken["chr1"][3_000:3_100] = True
        for peaks in sets.values():
            for name, start, end in peaks:
                self.taken[name][start:end] = True

    def slow_tiles(self) -> list[tuple[str, int]]:
        found = []
        for name, taken in self.taken.items():
            start = 0
            while start + WINDOW <= len(taken):
                wrong = np.flatnonzero(taken[start : start + WINDOW])
                if len(wrong):
                    start += int(wrong[0]) + 1
                    continue
                borders = {4_000, 4_700} if name == "chr1" else set()
                if not any(start < border < start + WINDOW for border in borders):
                    found.append((name, start))
                start += WINDOW
        return found

    def draw(self, count: int, seed: int = 0) -> list[tuple[str, int]]:
        with Peaks.read(self.files, self.lengths, self.excluded) as peaks:
            found = draw_negatives(
                count,
                seed,
                WINDOW,
                reference=self.reference,
                peaks=peaks,
                excluded=self.excluded,
                splits=self.splits,
            )
        return [(name, start) for name, starts in found.items() for start in starts.tolist()]


@pytest.mark.parametrize("seed", range(6))
def test_all_that_fit(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "_BLOCK", 777)
    monkeypatch.setattr(negatives, "_MANY", 3)
    case = Case(tmp_path, seed)
    tiles = case.slow_tiles()
    assert case.draw(len(tiles)) == tiles
    with pytest.raises(DataError, match=f"there is room for {len(tiles)} windows of 50 bases"):
        case.draw(len(tiles) + 1)


def test_some_of_them(tmp_path: Path) -> None:
    case = Case(tmp_path, 1)
    tiles = case.slow_tiles()
    some, others = case.draw(30), case.draw(30, seed=1)
    assert len(set(some)) == 30
    assert set(some) <= set(tiles)
    assert some == sorted(some) == case.draw(30)
    assert some != others
    # Every tile can be drawn, at any position.
    drawn = {tile for seed in range(40) for tile in case.draw(30, seed=seed)}
    assert drawn == set(tiles)


def test_tiles_between() -> None:
    starts, ends = np.array([0, 25, 60]), np.array([3, 30, 999])
    assert tiles_between(starts, ends, 100, 10).tolist() == [3, 13, 30, 40, 50]
    assert tiles_between(starts[:0], ends[:0], 35, 10).tolist() == [0, 10, 20]
    assert tiles_between(starts[:0], ends[:0], 9, 10).tolist() == []


def test_runs_of_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "_BLOCK", 10)
    bases = "NNACGTACGTNNNNNNNNNNNNACGTNACRTNN"
    reference = Reference.open(write_fasta(tmp_path / "g.fa", {"c": bases}))
    found = np.zeros(len(bases), dtype=bool)
    for start, end in zip(*runs_of_n(reference, "c"), strict=True):
        assert not found[start:end].any()
        found[start:end] = True
    assert found.tolist() == [base not in "ACGT" for base in bases]
    assert len(union(*runs_of_n(reference, "c"))[0]) == 5
