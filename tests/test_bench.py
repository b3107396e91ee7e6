"""Every bench runs: at a tiny size, with a net that costs nothing."""

import json
from pathlib import Path

import pytest

JOBS = Path(__file__).parent.parent / "jobs"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Return the door of the benches, as `python jobs/bench.py` finds it."""
    monkeypatch.syspath_prepend(str(JOBS))
    monkeypatch.setenv("TMPDIR", "")  # set by a bench, put back at the end
    monkeypatch.delenv("TMPDIR")
    import bench

    return bench


def figures(bench, capsys: pytest.CaptureFixture[str], *arguments: str):
    """Return the figures that a bench prints after its table."""
    bench.main([*arguments, "--json"])
    lines = capsys.readouterr().out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line in ("[", "{"))
    assert begin > 1  # there is a table
    return json.loads("\n".join(lines[begin:]))


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
    import bench_engine
    from bench_inputs import make_model

    from raygenome.engines.incremental.engine import CHUNK, cut
    from raygenome.engines.incremental.planner import plan_chain

    chain = plan_chain(make_model("stub").net)
    _, alleles, chunks = bench_engine.sample("1/4", chain, "cpu", None)
    assert chunks == len(list(cut(alleles, chain, *CHUNK["cpu"]))) == 2
    assert 2 * CHUNK["cpu"][0] >= len(alleles.alt) > 1.8 * CHUNK["cpu"][0]


def test_work_is_the_same_by_either_product(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench_inputs import make_alleles, make_model
    from bench_work import count_work

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
    from bench_inputs import BASES, make_alleles, spacing

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
    found = figures(bench, capsys, "forms", "--model", "stub", "--blocks", "4", "--rounds", "1")
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
