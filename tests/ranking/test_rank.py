"""Ranking compared with plain sorting: a run made by hand is ranked from its shards' files."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.run_files import SCHEMAS, entry, make_run

from raygenome.errors import StorageError
from raygenome.ranking import rank, sort_keys
from raygenome.ranking.per_target import write_top_effects
from raygenome.ranking.variants import summarise, write_summary
from raygenome.results.run_dir import RANKED_TARGETS, RANKED_VARIANTS, RunDir


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)


def leave(made):
    """Write what each shard leaves for ranking; return the shards, summaries and tops."""
    run = RunDir(made.path)
    shards, summaries, tops = [], {}, []
    for index, begin in enumerate(made.starts):
        end = [*made.starts, len(made.rows)][index + 1]
        shards.append(SimpleNamespace(index=index, begin=begin, end=end, rows=end - begin))
        effects = made.effects[begin:end]
        keys = sort_keys.encode(np.ascontiguousarray(effects.T), np.arange(begin, end))
        temporary = run.store.temporary_file("tops")
        with temporary.open("wb") as file:
            write_top_effects(file, np.sort(sort_keys.largest(keys, made.top_n), axis=1)[:, ::-1])
        tops.append(run.publish_working(temporary, "tops", index)["path"])
        columns = pa.Table.from_pylist(made.rows[begin:end])
        columns = columns.set_column(
            columns.column_names.index("pos"), "pos", columns["pos"].cast(pa.int32())
        )
        strongest = sort_keys.strongest(effects, 1)[:, 0]
        temporary = run.store.temporary_file("summary")
        write_summary(temporary, summarise(columns, strongest, begin))
        summaries[index] = run.publish_working(temporary, "summaries", index)["path"]
    return shards, summaries, tops


def ranked(made):
    """Rank a run, and return its two tables."""
    run = RunDir(made.path)
    run.store.remove(RANKED_VARIANTS, RANKED_TARGETS)
    shards, summaries, tops = leave(made)
    entries = rank.rank_run(
        run, shards, summaries, tops[::-1], targets=made.targets, top_n=made.top_n
    )
    for name in (RANKED_VARIANTS, RANKED_TARGETS):
        found = entry(made.path, made.path / name)
        assert entries[name] == {key: found[key] for key in ("bytes", "sha256")}
    assert not [path for path in run.store.temp_dir.rglob("*") if path.is_file()]
    return [pq.read_table(made.path / name) for name in (RANKED_VARIANTS, RANKED_TARGETS)]


def expected(made):
    return [
        pa.Table.from_pylist(rows, schema=SCHEMAS[name])
        for name, rows in (
            (RANKED_VARIANTS, made.ranked_variants()),
            (RANKED_TARGETS, made.ranked_targets()),
        )
    ]


@pytest.mark.parametrize("top_n", [1, 3, 7, 10_000])
def test_a_run_is_ranked_as_plain_sorting_does(tmp_path, rng, top_n):
    made = make_run(tmp_path / "run", rng)
    made.top_n = top_n
    for found, wanted in zip(ranked(made), expected(made), strict=True):
        assert found.equals(wanted)


def test_only_some_shards_hold_winners(tmp_path, rng):
    made = make_run(tmp_path / "run", rng, sizes=(("chr1", 3), ("chr2", 40), ("chr3", 5)))
    made.top_n = 4
    made.effects[:3] = made.effects[43:] = 0
    made.effects[3:43] = rng.normal(size=(40, 5)).astype(np.float32)
    for found, wanted in zip(ranked(made), expected(made), strict=True):
        assert found.equals(wanted)


@pytest.mark.parametrize("sizes", [(("chr1", 9),), (("chr1", 9), ("chr2", 9)), ()])
def test_schemas_do_not_depend_on_the_data(tmp_path, rng, sizes):
    made = make_run(tmp_path / "run", rng, sizes=sizes)
    for table, name in zip(ranked(made), (RANKED_VARIANTS, RANKED_TARGETS), strict=True):
        assert table.schema == SCHEMAS[name]


def test_names_that_sql_would_take_for_others(tmp_path, rng):
    made = make_run(tmp_path / "it's a run[1]", rng)
    made.targets[1] = made.targets[1]._replace(name="O'Neil's \"cell\"")
    for found, wanted in zip(ranked(made), expected(made), strict=True):
        assert found.equals(wanted)


def test_a_run_can_be_ranked_again(tmp_path, rng):
    made = make_run(tmp_path / "run", rng)
    first = ranked(made)
    parts = json.loads((made.path / "run.json").read_text())["parts"]
    assert all((made.path / part["path"]).exists() for part in parts)
    assert all(a.equals(b) for a, b in zip(first, ranked(made), strict=True))


def test_a_disk_that_fails_is_one_line(tmp_path, rng, monkeypatch):
    made = make_run(tmp_path / "run", rng)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rank, "rank_variants", full)
    with pytest.raises(StorageError, match=r"No space left .* run again with --resume"):
        ranked(made)
