import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_files import SCHEMAS, make_run

from raygenome.results import duck, rank, toplist
from raygenome.results.rundir import RunDir


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)


@pytest.fixture
def made(tmp_path, rng):
    return make_run(tmp_path / "run", rng)


def write_tops(made, folder, n=None):
    """Write each shard's strongest effects as the scoring workers do."""
    paths = []
    stops = [*made.starts[1:], len(made.rows)]
    for shard, (start, stop) in enumerate(zip(made.starts, stops, strict=False)):
        keys = toplist.encode(
            np.ascontiguousarray(made.effects[start:stop].T), np.arange(start, stop)
        )
        keys = toplist.merge(np.empty((len(keys), 0), np.uint64), keys, n or made.top_n)
        paths.append(folder / f"part-{shard:05d}.npy")
        folder.mkdir(parents=True, exist_ok=True)
        np.save(paths[-1], keys)
    return paths


def expected(rows, name):
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])


def test_rank_run_equals_plain_sorting(made):
    run = RunDir(made.path)
    for path in (run.ranked_variants, run.ranked_targets):
        path.unlink()
    write_tops(made, run.tops)
    stops = [*made.starts[1:], len(made.rows)]
    shards = [
        SimpleNamespace(index=i, begin=begin, end=end)
        for i, (begin, end) in enumerate(zip(made.starts, stops, strict=True))
    ]
    parts = json.loads(run.run_json.read_text())["parts"]
    rank.rank_run(run, shards, parts[::-1], targets=made.targets, top_n=made.top_n)
    variants = pq.read_table(run.ranked_variants)
    assert variants.equals(expected(made.ranked_variants(), "ranked/variants.parquet"))
    targets = pq.read_table(run.ranked_targets)
    assert targets.equals(expected(made.ranked_targets(), "ranked/targets.parquet"))
    assert not [path for path in run.temporary.rglob("*") if path.is_file()]


@pytest.mark.parametrize("top_n", [1, 3, 10_000])
def test_rank_targets_keeps_the_asked_number(made, tmp_path, top_n):
    made.top_n = top_n
    keys = rank.strongest_of_all(write_tops(made, tmp_path / "tops"), len(made.targets), top_n)
    with duck.connect(temp_dir=tmp_path / "spill") as sql:
        rank.rank_targets(sql, made.parts, made.starts, keys, tmp_path / "out")
    assert pq.read_table(tmp_path / "out").equals(
        expected(made.ranked_targets(), "ranked/targets.parquet")
    )


def test_no_alleles_give_empty_tables_with_the_right_columns(tmp_path, rng):
    made = make_run(tmp_path / "run", rng, sizes=())
    keys = rank.strongest_of_all([], len(made.targets), 10)
    with duck.connect(temp_dir=tmp_path / "spill") as sql:
        rank.rank_variants(sql, [], made.targets, tmp_path / "variants")
        rank.rank_targets(sql, [], [], keys, tmp_path / "targets")
    for name in ("variants", "targets"):
        table = pq.read_table(tmp_path / name)
        assert table.num_rows == 0
        assert table.schema == SCHEMAS[f"ranked/{name}.parquet"]


def test_only_some_parts_hold_winners(tmp_path, rng):
    made = make_run(tmp_path / "run", rng, sizes=(("chr1", 3), ("chr2", 40), ("chr3", 5)))
    made.top_n = 4
    made.effects[:3] = made.effects[43:] = 0
    made.effects[3:43] = rng.normal(size=(40, 5)).astype(np.float32)
    keys = rank.strongest_of_all(write_tops(made, tmp_path / "tops"), 5, 4)
    with duck.connect(temp_dir=tmp_path / "spill") as sql:
        rank.rank_targets(sql, made.parts, made.starts, keys, tmp_path / "out")
    assert pq.read_table(tmp_path / "out").equals(
        expected(made.ranked_targets(), "ranked/targets.parquet")
    )


@pytest.mark.parametrize("sizes", [(("chr1", 9),), (("chr1", 9), ("chr2", 9)), ()])
def test_schemas_do_not_depend_on_the_data(tmp_path, rng, sizes):
    made = make_run(tmp_path / "run", rng, sizes=sizes)
    keys = rank.strongest_of_all(write_tops(made, tmp_path / "tops"), 5, 4)
    with duck.connect(temp_dir=tmp_path / "spill") as sql:
        rank.rank_variants(sql, made.parts, made.targets, tmp_path / "variants")
        rank.rank_targets(sql, made.parts, made.starts, keys, tmp_path / "targets")
    for name in ("variants", "targets"):
        assert pq.read_schema(tmp_path / name) == SCHEMAS[f"ranked/{name}.parquet"]


@pytest.mark.parametrize("name", ["it's a run", "run[1]", "run*", "ru?1", "r{a,b}", "r%20n"])
def test_names_and_paths_that_sql_or_a_glob_would_take_for_others(tmp_path, rng, name):
    make_run(tmp_path / "run1", rng)
    made = make_run(tmp_path / name, rng)
    made.targets[1] = made.targets[1]._replace(name="O'Neil's \"cell\"")
    out = tmp_path / name / "variants"
    with duck.connect(temp_dir=tmp_path / name / "spill") as sql:
        rank.rank_variants(sql, made.parts, made.targets, out)
    table = pq.read_table(out)
    assert table.equals(expected(made.ranked_variants(), "ranked/variants.parquet"))


def test_bytes_do_not_depend_on_threads_or_memory(tmp_path, rng):
    # several row groups a part and several parts, so that threads have something to race for
    sizes = tuple((f"chr{i}", 50_000) for i in range(4))
    targets = make_run(tmp_path / "small", rng).targets
    parts = []
    for i, (chrom, count) in enumerate(sizes):
        score = np.round(np.abs(rng.normal(size=count)), 2).astype(np.float32)
        top = pa.array([[{"target": 2, "diff": s}] for s in score.tolist()])
        table = pa.table(
            {
                "chrom": [chrom] * count,
                "pos": np.sort(rng.integers(1, 10**6, count)).astype(np.int32),
                **{name: [f"{name}{j}" for j in range(count)] for name in ("id", "ref", "alt")},
                "score": score,
                "top": top.cast(
                    pa.list_(pa.struct([("target", pa.int16()), ("diff", pa.float32())]))
                ),
            }
        )
        parts.append(tmp_path / f"part-{i}.parquet")
        pq.write_table(table, parts[-1], row_group_size=8192)
    written = set()
    for threads, memory in [(1, "1GB"), (2, "1GB"), (4, "1GB"), (2, "100MB")]:
        out = tmp_path / "out"
        with duck.connect(temp_dir=tmp_path / "spill", threads=threads, memory_limit=memory) as sql:
            rank.rank_variants(sql, parts, targets, out)
        written.add(out.read_bytes())
    assert len(written) == 1
    ranked = pq.read_table(tmp_path / "out")
    score = np.concatenate([pq.read_table(part)["score"].to_numpy() for part in parts])
    assert (ranked["score"].to_numpy() == score[np.argsort(-score, kind="stable")]).all()
    assert (ranked["rank"].to_numpy() == np.arange(1, len(score) + 1)).all()
