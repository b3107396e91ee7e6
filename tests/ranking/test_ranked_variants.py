"""The ranking of all alleles equals plain sorting, wherever the buckets of the sort end."""

import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.run_files import SCHEMAS, make_run

from raygenome.genome.alleles import Shard
from raygenome.ranking import external_sort, per_target, sort_keys, variants


def write_summaries(made, folder):
    """Write each shard's summary as the scoring workers do; return the shards."""
    folder.mkdir()
    stops = [*made.starts[1:], len(made.rows)]
    shards = []
    for index, (begin, end) in enumerate(zip(made.starts, stops, strict=False)):
        keys = pa.Table.from_pylist(made.rows[begin:end])
        strongest = sort_keys.strongest(made.effects[begin:end], 1)[:, 0]
        summary = variants.summarise(keys, strongest, begin)
        variants.write_summary(folder / str(index), summary)
        chrom = made.rows[begin]["chrom"]
        shards.append(Shard(index, chrom, chrom, begin, end))
    return shards


def rank(made, tmp_path, shards, name="ranked"):
    variants.rank_variants(
        shards,
        lambda shard: tmp_path / "summaries" / str(shard.index),
        made.targets,
        tmp_path / name,
        tmp_path / "scratch",
    )
    assert not (tmp_path / "scratch").exists()
    return pq.read_table(tmp_path / name)


@pytest.mark.parametrize("bucket", [1, 7, 40, 10_000])
@pytest.mark.parametrize("sampled", [1, 64])
def test_ranking_equals_plain_sorting(tmp_path, monkeypatch, bucket, sampled) -> None:
    """The effects have many ties, which lie across the borders of buckets."""
    monkeypatch.setattr(external_sort, "BUCKET", bucket)
    monkeypatch.setattr(variants, "_SAMPLED", sampled)
    monkeypatch.setattr(variants, "_ROW_GROUP", 16)
    made = make_run(tmp_path / "run", np.random.default_rng(bucket))
    ranked = rank(made, tmp_path, write_summaries(made, tmp_path / "summaries"))
    assert ranked.equals(
        pa.Table.from_pylist(made.ranked_variants(), schema=SCHEMAS["ranked/variants.parquet"])
    )
    groups = pq.read_metadata(tmp_path / "ranked")
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [16, 16, 16, 16, 5]


def test_no_alleles_give_an_empty_table_with_the_right_columns(tmp_path) -> None:
    made = make_run(tmp_path / "run", np.random.default_rng(0), sizes=())
    ranked = rank(made, tmp_path, write_summaries(made, tmp_path / "summaries"))
    assert ranked.num_rows == 0
    assert ranked.schema == SCHEMAS["ranked/variants.parquet"]


def test_bytes_do_not_depend_on_threads(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(external_sort, "BUCKET", 500)
    sizes = tuple((f"chr{i}", 700) for i in range(1, 6))
    made = make_run(tmp_path / "run", np.random.default_rng(1), sizes=sizes)
    shards = write_summaries(made, tmp_path / "summaries")
    written = set()
    for threads in (1, 2, 4):
        monkeypatch.setattr(external_sort, "cores", lambda threads=threads: threads)
        rank(made, tmp_path, shards)
        written.add((tmp_path / "ranked").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    "sizes", [(("chr1", 30), ("chr1", 21), ("chrX", 1)), (("chr1", 3),), (), (("chr1", 200),) * 3]
)
@pytest.mark.parametrize("top_n", [1, 7])
def test_the_strongest_of_each_target_are_those_of_plain_sorting(tmp_path, sizes, top_n) -> None:
    made = make_run(tmp_path / "run", np.random.default_rng(top_n), sizes=sizes)
    made.top_n = top_n
    shards = write_summaries(made, tmp_path / "summaries")
    files, threshold = [], per_target.Threshold(5, top_n)
    for shard in shards:
        kept = per_target.TopEffects(5, top_n, shard.begin, threshold)
        kept.append(made.effects[shard.begin : shard.end])
        threshold.rise(shard.index, kept.keys())
        file = BytesIO()
        per_target.write_top_effects(file, kept.keys())
        files.append(file.getvalue())
    keys = per_target.merge_top_effects(files, 5, top_n)
    read: list[int] = []

    def summary_of(shard):
        read.append(shard.index)
        return tmp_path / "summaries" / str(shard.index)

    per_target.rank_targets(keys, shards, summary_of, tmp_path / "targets")
    expected = pa.Table.from_pylist(made.ranked_targets(), schema=SCHEMAS["ranked/targets.parquet"])
    assert pq.read_table(tmp_path / "targets").equals(expected)
    _, rows = sort_keys.decode(keys)
    holding = {
        shard.index for shard in shards if ((rows >= shard.begin) & (rows < shard.end)).any()
    }
    assert sorted(read) == sorted(holding)


def test_grouping_many_small_shards_is_fast() -> None:
    shards = [Shard(i, "chr1", "chr1", 10 * i, 10 * i + 10) for i in range(30_000)]
    began = time.perf_counter()
    groups = list(variants._groups(shards * 4))
    assert time.perf_counter() - began < 1.0
    assert [shard for group in groups for shard in group] == shards * 4
    assert sum(shard.rows for shard in groups[0][:-1]) < external_sort.BUCKET
    assert sum(shard.rows for shard in groups[0]) >= external_sort.BUCKET


def test_as_many_items_are_worked_on_ahead_as_asked_for() -> None:
    taken: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        made = external_sort.ahead(pool, str, (taken.append(i) or i for i in range(50)), 16)
        assert next(made) == "0"
        assert len(taken) == 17


def test_a_failure_leaves_no_scratch_file(tmp_path) -> None:
    made = make_run(tmp_path / "run", np.random.default_rng(2))
    shards = write_summaries(made, tmp_path / "summaries")
    (tmp_path / "summaries" / "2").write_bytes(b"PAR1 of something else PAR1")
    with pytest.raises(pa.ArrowInvalid):
        rank(made, tmp_path, shards)
    assert not (tmp_path / "scratch").exists()


def test_a_summary_is_small(tmp_path) -> None:
    """Its footer does not grow with the number of targets."""
    made = make_run(tmp_path / "run", np.random.default_rng(3), targets=40)
    write_summaries(made, tmp_path / "summaries")
    assert pq.read_metadata(tmp_path / "summaries" / "0").serialized_size < 2_000
