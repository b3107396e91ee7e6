"""The planned alleles on disk: sorted for any input order, and read back by row range."""

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raygenome.genome.alleles import PLANNED
from raygenome.ranking import external_sort
from raygenome.scoring import allele_file
from raygenome.scoring.allele_file import PlannedAllelesWriter, read_rows

KEY = ["contig", "start", "ref", "alt", "record", "allele"]


def random_rows(rng: np.random.Generator, n: int) -> list[dict[str, object]]:
    return [
        {
            "contig": int(rng.integers(0, 3)),
            "start": int(rng.integers(0, max(n // 2, 1))),
            "id": f"rs{i}",
            "ref": "".join(rng.choice(list("ACGT"), rng.integers(1, 3))),
            "alt": "".join(rng.choice(list("ACGT"), rng.integers(1, 3))),
            "record": i,
            "allele": 1,
        }
        for i in range(n)
    ]


def sorted_slowly(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(rows, key=lambda row: tuple(row[name] for name in KEY))


def written(
    path: Path, rows: list[dict[str, object]], batch: int
) -> tuple[list[dict[str, object]], list[tuple[int, int, int]]]:
    path.parent.mkdir(exist_ok=True)
    with PlannedAllelesWriter(path, path.parent) as out:
        for begin in range(0, len(rows), batch):
            out.append(pa.Table.from_pylist(rows[begin : begin + batch], PLANNED))
        runs = out.finish()
    total = runs[-1][2] if runs else 0
    return read_rows(path, 0, total).to_pylist(), runs


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.parametrize("order", ["sorted", "by position", "shuffled"])
def test_rows_come_back_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, batch: int
) -> None:
    monkeypatch.setattr(allele_file, "BATCH", 64)
    monkeypatch.setattr(allele_file, "_BLOCK", 2)
    monkeypatch.setattr(external_sort, "BUCKET", 100)
    rng = np.random.default_rng(batch)
    rows = random_rows(rng, 500)
    given = {
        "sorted": sorted_slowly(rows),
        "by position": sorted(rows, key=lambda row: (row["contig"], row["start"])),
        "shuffled": rows,
    }[order]
    path = tmp_path / "plan" / "alleles.arrow"
    found, runs = written(path, given, batch)
    assert found == sorted_slowly(rows)
    for contig, begin, end in runs:
        assert {row["contig"] for row in found[begin:end]} == {contig}
    assert [name.name for name in path.parent.iterdir()] == ["alleles.arrow"]  # no scratch left
    for begin, end in ((0, 1), (63, 65), (64, 128), (100, 499), (499, 500)):
        assert read_rows(path, begin, end).to_pylist() == found[begin:end]


def test_sorted_input_is_not_sorted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlannedAllelesWriter, "_sort", lambda _: pytest.fail("sorted out of core"))
    rows = sorted(
        random_rows(np.random.default_rng(0), 50), key=lambda r: (r["contig"], r["start"])
    )
    assert written(tmp_path / "a.arrow", rows, 9)[0] == sorted_slowly(rows)


def test_no_alleles(tmp_path: Path) -> None:
    assert written(tmp_path / "a.arrow", [], 10) == ([], [])


def test_a_signal_while_sorting_is_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sort_rows = allele_file._sort_rows

    def interrupted(alleles: pa.Table) -> pa.Table:
        os.kill(os.getpid(), signal.SIGINT)
        return sort_rows(alleles)

    monkeypatch.setattr(allele_file, "_sort_rows", interrupted)
    rows = random_rows(np.random.default_rng(3), 100)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "a.arrow", rows, 10)
    assert not (tmp_path / "sorting").exists()
