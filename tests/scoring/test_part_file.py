"""A part's content against the effects it was given, and what is kept for ranking."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygenome.ranking import sort_keys
from raygenome.ranking.per_target import TargetTops
from raygenome.scoring import part_file as module
from raygenome.scoring.part_file import KEYS, PartWriter, part_schema

NAMES = ["a", "b c", "d"]


def keys(n: int) -> pa.Table:
    columns = [["chr1"] * n, range(n), ["."] * n, ["A"] * n, ["C"] * n, range(n), [1] * n]
    return pa.table(
        [pa.array(c, t) for c, (_, t) in zip(columns, KEYS, strict=True)], schema=pa.schema(KEYS)
    )


def write(
    path: Path,
    effects: np.ndarray,
    *,
    dtype: str = "float16",
    columns: bool = True,
    summary: bool = True,
    block: int = 100,
) -> pa.Table:
    schema = part_schema(
        NAMES, dtype=dtype, columns=columns, summary=summary, provenance={"run": 1}
    )
    writer = PartWriter(path, schema, keys(len(effects)), top_k=2, dtype=dtype)
    for begin in range(0, len(effects), block):
        writer.append(effects[begin : begin + block])
    writer.close()
    return pq.read_table(path, page_checksum_verification=True)


@pytest.mark.parametrize("block", [1, 30, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_part_holds_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, block: int
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 64)
    effects = np.random.default_rng(1).normal(0, 0.1, (200, 3)).astype(np.float32)
    table = write(tmp_path / "p", effects, dtype=dtype, block=block)
    assert table.schema.names == [name for name, _ in KEYS] + ["score", "top", *NAMES]
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
    assert "score" not in write(tmp_path / "b", effects, summary=False).schema.names


def test_a_part_that_lacks_rows_is_refused(tmp_path: Path) -> None:
    schema = part_schema(NAMES, dtype="float16", columns=True, summary=True, provenance={})
    writer = PartWriter(tmp_path / "p", schema, keys(5), top_k=2, dtype="float16")
    writer.append(np.zeros((4, 3), dtype=np.float32))
    with pytest.raises(RuntimeError, match="4 rows of 5"):
        writer.close()
    writer.abandon()


@pytest.mark.parametrize("n", [1, 10, 5000])
def test_target_tops_against_sorting(n: int) -> None:
    rng = np.random.default_rng(n)
    # Few distinct values: many ties, broken by the row.
    effects = rng.integers(-20, 20, (9000, 4)).astype(np.float32) / 64
    tops = TargetTops(4, n, first_row=1000)
    for begin in range(0, 9000, 512):
        tops.append(effects[begin : begin + 512])
    diff, rows = sort_keys.decode(tops.keys())
    for target in range(4):
        order = sorted(range(9000), key=lambda r: (-abs(effects[r, target]), r))[:n]
        assert rows[target].tolist() == [1000 + r for r in order]
        np.testing.assert_array_equal(diff[target], effects[order, target])
