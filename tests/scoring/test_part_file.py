"""The content of a part, compared with its effects, and the rows kept for ranking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygenome.engines.full import Effects
from raygenome.genome.alleles import KEYS
from raygenome.ranking import sort_keys
from raygenome.ranking.per_target import TopEffects
from raygenome.scoring import part_file as module
from raygenome.scoring.part_file import PartWriter, ScoreColumns, TargetColumns

NAMES = ["a", "b c", "d"]


def keys(n: int) -> pa.Table:
    columns = [["chr1"] * n, range(n), ["."] * n, ["A"] * n, ["C"] * n, range(n), [1] * n]
    return pa.table(
        [pa.array(c, field.type) for c, field in zip(columns, KEYS, strict=True)], schema=KEYS
    )


def writer(
    path: Path, rows: int, *, dtype: str = "float16", columns: bool = True, score: bool = True
) -> PartWriter:
    makers = [
        *([ScoreColumns(2)] if score else []),
        *([TargetColumns(NAMES, "diff", dtype)] if columns else []),
    ]
    return PartWriter(path, keys(rows), makers, {"run": 1})


def write(path: Path, effects: np.ndarray, *, block: int = 100, **options: Any) -> pa.Table:
    part = writer(path, len(effects), **options)
    for begin in range(0, len(effects), block):
        piece = effects[begin : begin + block]
        part.append(Effects(piece, -piece))
    part.close()
    return pq.read_table(path, page_checksum_verification=True)


@pytest.mark.parametrize("block", [1, 30, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_part_holds_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, block: int
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 64)
    effects = np.random.default_rng(1).normal(0, 0.1, (200, 3)).astype(np.float32)
    table = write(tmp_path / "p", effects, dtype=dtype, block=block)
    assert table.schema.names == [*KEYS.names, "score", "top", *NAMES]
    assert pq.read_metadata(tmp_path / "p").num_row_groups == 4
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(table[name].to_numpy(), effects[:, index].astype(dtype))
    np.testing.assert_array_equal(table["score"].to_numpy(), np.abs(effects).max(axis=1))
    for row, top in zip(effects, table["top"].to_pylist(), strict=True):
        order = sorted(range(3), key=lambda t: (-abs(row[t]), t))[:2]
        assert top == [{"target": t, "diff": float(row[t])} for t in order]
    assert json.loads(table.schema.metadata[b"raygenome"]) == {"run": 1}


def test_bytes_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    effects = np.random.default_rng(1).normal(0, 0.1, (500, 3)).astype(np.float32)
    for name, block in (("a", 7), ("b", 500)):
        write(tmp_path / name, effects, block=block)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_top_alone_and_columns_alone(tmp_path: Path) -> None:
    effects = np.ones((3, 3), dtype=np.float32)
    assert "a" not in write(tmp_path / "a", effects, columns=False).schema.names
    assert "score" not in write(tmp_path / "b", effects, score=False).schema.names


def test_each_maker_takes_its_own_effect(tmp_path: Path) -> None:
    effects = np.random.default_rng(2).normal(0, 0.1, (30, 3)).astype(np.float32)
    part = PartWriter(tmp_path / "p", keys(30), [TargetColumns(NAMES, "log_odds", "float32")], {})
    part.append(Effects(np.zeros_like(effects), effects))
    part.close()
    table = pq.read_table(tmp_path / "p")
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(table[name].to_numpy(), effects[:, index])


def test_the_strongest_keys_are_those_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 64)
    effects = np.random.default_rng(3).normal(0, 0.1, (200, 3)).astype(np.float32)
    score = ScoreColumns(2)
    part = PartWriter(tmp_path / "p", keys(200), [score], {})
    part.append(Effects(effects, effects))
    part.close()
    np.testing.assert_array_equal(score.strongest, sort_keys.strongest(effects, 1)[:, 0])


def test_a_part_that_lacks_rows_is_refused(tmp_path: Path) -> None:
    part = writer(tmp_path / "p", 5)
    part.append(Effects(np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)))
    with pytest.raises(RuntimeError, match="4 rows of 5"):
        part.close()
    part.abandon()


@pytest.mark.parametrize("n", [1, 10, 5000])
def test_top_effects_against_sorting(n: int) -> None:
    rng = np.random.default_rng(n)
    # Few distinct values: many ties, broken by the row.
    effects = rng.integers(-20, 20, (9000, 4)).astype(np.float32) / 64
    top = TopEffects(4, n, first_row=1000)
    for begin in range(0, 9000, 512):
        top.append(effects[begin : begin + 512])
    diff, rows = sort_keys.decode(top.keys())
    for target in range(4):
        order = sorted(range(9000), key=lambda r: (-abs(effects[r, target]), r))[:n]
        assert rows[target].tolist() == [1000 + r for r in order]
        np.testing.assert_array_equal(diff[target], effects[order, target])
