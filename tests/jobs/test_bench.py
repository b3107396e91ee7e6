"""Tests of `python jobs/bench`: every command runs, at a tiny size, with a tiny net."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Return the program of the benchmarks."""
    monkeypatch.setenv("TMPDIR", "")  # a benchmark sets it; monkeypatch restores it
    monkeypatch.delenv("TMPDIR")
    from bench import program

    return program


def figures(bench, capsys: pytest.CaptureFixture[str], *arguments: str):
    """Run a benchmark; return the figures that it prints after its table."""
    bench.main([*arguments, "--json"])
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line in ("[", "{"))
    assert begin > 1  # there is a table
    return json.loads("\n".join(lines[begin:]))


@pytest.mark.slow
def test_engine(bench, capsys: pytest.CaptureFixture[str]) -> None:
    densities = ["saturation", "1/4", "1/4+indels", "isolated"]
    rows = figures(
        bench,
        capsys,
        *("engine", "--model", "stub", "--rounds", "1", "--alleles", "30"),
        *("--whole-alleles", "60", "--densities", *densities),
    )
    assert [row["density"] for row in rows] == densities
    for row in rows:
        assert row["alleles"] == 30
        assert row["ratio"] == pytest.approx(row["incremental"] / row["plain"])
        assert row["work"]["macs"] > 0
        assert (row["whole"] is not None) == (row["density"] == "1/4")


def test_engine_fills_whole_chunks(bench) -> None:
    from bench import engine
    from bench.inputs import make_model

    from raygenome.engines.incremental.engine import CHUNK, cut
    from raygenome.engines.incremental.planner import plan_chain

    chain = plan_chain(make_model("stub").net)
    _, alleles, chunks = engine.sample("1/4", chain, "cpu", None)
    assert chunks == len(list(cut(alleles, chain, *CHUNK["cpu"]))) == 2
    assert 2 * CHUNK["cpu"][0] >= len(alleles.alt) > 1.8 * CHUNK["cpu"][0]


def test_work_is_the_same_by_either_product(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.inputs import make_alleles, make_model
    from bench.work import count_work

    from raygenome.engines.choice import make_engine
    from raygenome.engines.incremental import gemm

    model = make_model("stub")
    contig, alleles = make_alleles("1/4", 20)
    counted = []
    for has_onednn in (True, False):
        if not has_onednn:
            monkeypatch.setattr(gemm, "_has_onednn", lambda: False)
        engine = make_engine("incremental", model.net, **model.options)
        counted.append(count_work(engine, alleles, contig))
        engine.close()
    assert counted[0] == counted[1]
    assert counted[0].macs > 0


@pytest.mark.parametrize("option", [["--device", "cuda"], ["--precision", "tf32"]])
def test_what_the_machine_lacks_is_one_line(
    bench, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"bench: [^\n]*cuda"):
        bench.main(["engine", "--model", "stub", *option])


@pytest.mark.parametrize("density", ["saturation", "1/4", "1/33", "isolated"])
def test_alleles_have_their_density(bench, density: str) -> None:
    import numpy as np
    from bench.inputs import BASES, make_alleles, spacing

    contig, alleles = make_alleles(density, 3000)
    assert len(alleles.alt) == 3000
    assert np.ptp(alleles.start) / 3000 == pytest.approx(spacing(density), rel=0.05)
    alts = np.frombuffer(b"".join(alleles.alt), dtype=np.uint8)
    assert (BASES[contig.codes[alleles.start]] != alts).all()
    assert len(set(zip(alleles.start.tolist(), alleles.alt, strict=True))) == 3000


def test_exact(bench, capsys: pytest.CaptureFixture[str]) -> None:
    rows = figures(bench, capsys, "exact", "--model", "stub", "--alleles", "40")
    assert len(rows) == 4
    for row in rows:
        assert row["largest error"] < (1e-5 if row["precision"] == "fp32" else 0.1)


def test_forms(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(
        bench, capsys, "algorithms", "--model", "stub", "--blocks", "4", "--rounds", "1"
    )
    assert [row["layer"] for row in found["layers"]] == ["stage 2"]


def test_speed(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(bench, capsys, "speed", "--model", "stub", "--variants", "40", "--rounds", "1")
    assert found["plain loop"]["ratio"] == 1
    assert found["whole command"]["variants_per_second"] > 0


@pytest.mark.slow
def test_memory(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(bench, capsys, "memory", "--records", "50")
    assert all(peak > 10 for peak in found["50"].values())


@pytest.mark.slow
def test_engine_memory(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(
        bench,
        capsys,
        *("engine-memory", "--model", "stub", "--alleles", "50", "--densities", "1/4"),
    )
    assert found["1/4"]["first"]["peak"] > found["1/4"]["first"]["own"] > 10


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.ray
def test_scale(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(
        bench,
        capsys,
        *("scale", "--quick", "--alleles", "200_000", "--shards", "60", "--workers", "1", "2"),
        *("--seconds", "1"),
    )
    (driver,) = found["driver"]
    assert driver["shards"] == 60
    assert 0 < driver["cpu_ms"] < 100
    assert [row["workers"] for row in found["efficiency"]] == [1, 2]
    for row in found["efficiency"]:
        assert 0.3 < row["efficiency"] <= 1
        assert row["shards"] >= 80 * row["workers"]
    assert [row["stage"] for row in found["stages"]] == ["plan", "rank"] * 2 + ["rank targets"]
    for row in found["stages"]:
        assert row["seconds"] > 0
        assert row["input_bytes"] > 0
        assert row["output_bytes"] > 0
    assert found["stages"][2]["shards"] == 49  # the fewest shards that a plan cuts


def test_scale_asks_for_space_first(bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"bench: [^\n]* GB are needed; [^\n]*"):
        bench.main(["scale", "--alleles", "1e12"])
    with pytest.raises(SystemExit):
        bench.main(["scale", "--alleles", "1.5"])
    assert "1.5 is not a number of alleles" in capsys.readouterr().err


def test_stub_shards_are_those_of_a_genome(bench) -> None:
    from bench.pool import biggest_first, genome_tasks

    tasks = list(genome_tasks(400, 30.0))
    assert sum(task.seconds for task in tasks) == pytest.approx(30)
    assert 400 <= len(tasks) < 430
    rows = [task.rows for task in biggest_first(tasks)]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] / 50


def test_big_inputs_are_what_they_say(bench, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq
    from bench.big import make_summaries, random_tops, write_big_vcf

    from raygenome.ranking.per_target import read_top_effects
    from raygenome.vcf.reader import open_vcf

    for name, info_bytes in (("sites", 1), ("info", 200)):
        (tmp_path / name).mkdir()
        fasta, vcf = write_big_vcf(tmp_path / name, 3000, info_bytes)
        genome = fasta.read_text().partition("\n")[2].replace("\n", "")
        with open_vcf(str(vcf)) as reader:
            (sites,) = list(reader)
        assert len(sites.pos) == 3000
        assert [genome[pos - 1] for pos in sites.pos.to_pylist()] == sites.ref.to_pylist()
        pairs = zip(sites.ref.to_pylist(), sites.alt.to_pylist(), strict=True)
        assert all(ref != alt for ref, alt in pairs)
    shards, summaries = make_summaries(tmp_path / "run", 70_000, targets=5)
    assert [shard.rows for shard in shards] == [65_536, 4_464]
    assert [pq.read_metadata(path).num_rows for path in summaries] == [65_536, 4_464]
    for shard, each in ((0, 10), (7, 10), (8, 10), (16, 5)):
        made = random_tops(np.random.default_rng(0), shard, workers=8, targets=3, top_n=10)
        targets, _ = read_top_effects(made)
        assert np.bincount(targets).tolist() == [each] * 3


def test_cost(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(
        bench,
        capsys,
        *("cost", "--model", "stub", "--sample", "300", "--plan-seconds", "0.5"),
        *("--rank-seconds", "1.5", "--variants-per-second", "1000", "--dollars-per-hour", "2"),
        *("--alleles", "7_200_000", "--workers", "1", "4", "--efficiency", "0.5"),
    )
    one, four = found["rows"]
    assert one["score_hours"] == pytest.approx(2)
    assert four["score_hours"] == pytest.approx(1)
    assert one["plan_and_rank_hours"] == four["plan_and_rank_hours"] == pytest.approx(14.4 / 3600)
    assert four["dollars"] == pytest.approx(2 * (4 + 14.4 / 3600))
    assert found["bytes"]["full"] > found["bytes"]["top"] > 7_200_000 * 50
    assert {figure["source"].split(":")[0] for figure in found["inputs"]} == {
        "given",
        "measured",
        "python jobs/bench scale",
    }


@pytest.mark.slow
def test_cost_measures_what_is_not_given(bench, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(
        bench, capsys, *("cost", "--model", "stub", "--sample", "60", "--million", "2000")
    )
    assert found["rows"][0]["dollars"] is None
    values = {figure["name"]: figure["value"] for figure in found["inputs"]}
    assert min(values["rate"], values["plan"], values["rank"]) > 0
