"""A whole run, end to end: its files, their correctness, and that equal runs have equal bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.builders import STUB, load_model, write_model, write_vcf
from support.small_run import CONTIGS, GENOME, RECORDS, contents, make_inputs, parts

import raygenome
from raygenome.errors import NoInput, UsageError
from raygenome.genome.sequence import encode, one_hot_table, reverse_complement
from raygenome.registry.model import Model
from raygenome.results.run_dir import read_run
from raygenome.results.verify import verify
from raygenome.storage.store import LocalStore


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    return make_inputs(tmp_path)


def slow_diff(model: Path, bases: str, start: int, ref: str, alt: str) -> np.ndarray:
    """Score one allele with strings and one window at a time."""
    net, spec = load_model(model)
    net = net.double()
    table = one_hot_table(spec.channels, spec.n_value)
    haplotype = bases[:start] + alt + bases[start + len(ref) :]
    begin = start - spec.centre + (len(alt) - len(ref)) // 2

    def window(of: str, at: int) -> np.ndarray:
        return encode(
            "".join(of[i] if 0 <= i < len(of) else "N" for i in range(at, at + spec.window))
        )

    def p(codes: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(table[codes].T[None]).double()
        with torch.no_grad():
            return torch.sigmoid(net(x)).numpy()[0]

    pair = window(bases, start - spec.centre), window(haplotype, begin)
    forward = p(pair[1]) - p(pair[0])
    reverse = p(reverse_complement(pair[1])) - p(reverse_complement(pair[0]))
    return (forward + reverse) / 2


@pytest.mark.slow
def test_every_row_against_a_slow_twin(tmp_path: Path, inputs: dict[str, Any]) -> None:
    run = raygenome.score(
        **inputs, out=tmp_path / "run", workers=0, shard_size=50, effect_dtype="float32", top_k=3
    )
    alleles = [
        (chrom, pos, name, ref, alt, record, number)
        for record, (chrom, pos, name, ref, alts) in enumerate(RECORDS)
        for number, alt in enumerate(alts.split(","), start=1)
    ]
    order = {chrom: index for index, chrom in enumerate(CONTIGS)}
    alleles.sort(key=lambda a: (order[a[0]], a[1], a[3], a[4], a[5], a[6]))
    rows = parts(run.path)
    keys = ("chrom", "pos", "id", "ref", "alt", "record", "allele")
    assert [tuple(row[key] for key in keys) for row in rows] == alleles
    assert run.counts == {"read": len(rows), "scored": len(rows), "filtered": 0, "skipped": {}}

    names = [target.name for target in Model.open(inputs["model"]).targets]
    for row in rows[::7]:
        bases = GENOME[row["chrom"]]
        expected = slow_diff(inputs["model"], bases, row["pos"] - 1, row["ref"], row["alt"])
        found = np.array([row[name] for name in names])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert row["score"] == np.abs(found).max()
        strongest = sorted(range(len(names)), key=lambda t: (-abs(found[t]), t))[:3]
        assert [entry["target"] for entry in row["top"]] == strongest


def test_the_files_of_a_run(tmp_path: Path, inputs: dict[str, Any]) -> None:
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=100, top_n=20)
    left = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    listed = {file["path"] for file in run.document["parts"] + run.document["files"]}
    assert left == listed | {"run.json", "_SUCCESS", "progress.json"}
    progress = json.loads((run.path / "progress.json").read_text())
    assert (progress["state"], progress["done"]) == ("done", run.counts["scored"])
    assert progress["shards_done"] == progress["shards"] == len(run.document["parts"])
    assert {f"scores/chrom={chrom}" for chrom in CONTIGS} == {
        str(Path(part["path"]).parent) for part in run.document["parts"]
    }
    for file in run.document["parts"] + run.document["files"]:
        path = run.path / file["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        assert path.stat().st_size == file["bytes"]
        assert pq.read_metadata(path).num_rows == file["rows"]
    assert read_run(run.path) == run.document
    assert set(run.seconds) == {"total", "plan", "score", "rank"}
    vcf = run.document["inputs"]["vcf"]
    assert vcf["sha256"] == hashlib.sha256(inputs["vcf"].read_bytes()).hexdigest()
    schema = pq.read_schema(run.path / run.document["parts"][0]["path"])
    assert json.loads(schema.metadata[b"raygenome"])["model"] == "stub"


def test_no_table_is_read_back_to_be_hashed(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an object store it would all be downloaded again."""
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "digest", lambda _, name: pytest.fail(f"{name} was read"))
        run = raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    assert verify(run.path).whole


@pytest.mark.slow
def test_ranked_tables_are_the_sorted_scores(tmp_path: Path, inputs: dict[str, Any]) -> None:
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=64, top_n=17)
    rows = parts(run.path)
    ranked = pq.read_table(run.path / "ranked/variants.parquet").to_pylist()
    order = sorted(range(len(rows)), key=lambda i: (-rows[i]["score"], i))
    assert [r["rank"] for r in ranked] == list(range(1, len(rows) + 1))
    for key in ("chrom", "pos", "id", "ref", "alt", "score"):
        assert [r[key] for r in ranked] == [rows[i][key] for i in order]
    assert [(r["target"], r["diff"]) for r in ranked] == [
        tuple(rows[i]["top"][0].values()) for i in order
    ]
    targets = pq.read_table(run.path / "ranked/targets.parquet").to_pylist()
    assert [(r["target"], r["rank"]) for r in targets] == [
        (t, k) for t in range(5) for k in range(1, 18)
    ]
    # --effects top has no columns to round, yet ranks the same.
    bare = raygenome.score(
        **inputs, out=tmp_path / "top", workers=0, shard_size=64, top_n=17, effects="top"
    )
    assert pq.read_table(bare.path / "ranked/targets.parquet").to_pylist() == targets
    assert "top" in pq.read_schema(bare.path / bare.document["parts"][0]["path"]).names
    assert "score" in pq.read_schema(bare.path / bare.document["parts"][0]["path"]).names


def test_order_of_the_input_does_not_matter(tmp_path: Path, inputs: dict[str, Any]) -> None:
    shuffled = list(RECORDS)
    np.random.default_rng(0).shuffle(shuffled)
    other = {**inputs, "vcf": write_vcf(tmp_path / "shuffled.vcf", shuffled)}
    sorted_run = raygenome.score(**inputs, out=tmp_path / "a", workers=0)
    shuffled_run = raygenome.score(**other, out=tmp_path / "b", workers=0)

    def without_record(path: Path) -> list[str]:
        # Equal alleles of two records are in the order of the records, which has changed.
        return sorted(repr({**row, "record": 0}) for row in parts(path))

    assert without_record(sorted_run.path) == without_record(shuffled_run.path)
    for path in (sorted_run.path, shuffled_run.path):
        keys = [(CONTIGS.index(row["chrom"]), row["pos"], row["ref"]) for row in parts(path)]
        assert keys == sorted(keys)


@pytest.mark.ray
@pytest.mark.slow
def test_same_bytes_for_0_1_and_2_workers(tmp_path: Path, inputs: dict[str, Any]) -> None:
    found = {}
    for workers in (0, 1, 2):
        run = raygenome.score(
            **inputs, out=tmp_path / str(workers), workers=workers, shard_size=50, log_odds=True
        )
        found[workers] = contents(run.path)
    assert found[0] == found[1] == found[2]
    assert any(name.startswith("log_odds/") for name in found[0])


def test_header_only_is_an_empty_run(tmp_path: Path, inputs: dict[str, Any]) -> None:
    empty = {**inputs, "vcf": write_vcf(tmp_path / "empty.vcf", [])}
    run = raygenome.score(**empty, out=tmp_path / "run", workers=0)
    assert run.counts == {"read": 0, "scored": 0, "filtered": 0, "skipped": {}}
    assert len(run.top()) == 0
    assert run.query("SELECT count(*) AS n FROM scores")["n"].tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "fast"}, "--engine is 'fast'; it must be one of auto, incremental, full"),
        ({"top_k": 0}, "--top-k is 0; it must be a whole number"),
        ({"workers": -1}, "--workers is -1"),
        ({"workers": "many"}, "--workers is many; it must be auto"),
        ({"workers": True}, "--workers is True"),
        ({"shard_size": "10"}, "--shard-size is '10'"),
        ({"top_k": None}, "--top-k is None"),
        ({"top_n": 2.5}, "--top-n is 2.5"),
        ({"apply_filters": 5}, "--apply-filters is 5"),
        ({"apply_filters": ""}, "empty name"),
        ({"precision": "tf32"}, "tf32 exists only on CUDA"),
        ({"nonsense": 1}, "no option 'nonsense'"),
        ({"resume": True, "overwrite": True}, "contradict"),
    ],
)
def test_options_are_checked_first(
    tmp_path: Path, inputs: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        raygenome.score(**inputs, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["vcf", "fasta", "model"])
def test_a_missing_input_is_named(tmp_path: Path, inputs: dict[str, Any], what: str) -> None:
    inputs[what] = tmp_path / "nowhere" / "x"
    with pytest.raises((NoInput, FileNotFoundError), match="nowhere"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0)


def test_dry_run_counts_and_leaves_nothing(tmp_path: Path, inputs: dict[str, Any]) -> None:
    from raygenome.scoring.estimate import dry_run

    before = set(tmp_path.rglob("*"))
    found = dry_run(**inputs, workers=0)
    assert set(tmp_path.rglob("*")) - before <= set((tmp_path / "raygenome-home").rglob("*")) | {
        tmp_path / "raygenome-home"
    }
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    assert found["counts"] == run.counts
    assert found["shards"] == len(run.document["parts"])
    assert found["variants_per_second"] > 0 < found["seconds"]


@pytest.mark.slow
def test_real_variants(tmp_path: Path, real_data: Path) -> None:
    """1000 Genomes sites and one person's calls on hg19: REF agrees wherever there is sequence."""
    model = write_model(
        tmp_path / "stub", window=600, targets=3, channels=[4], kernels=[9], pools=[8], hidden=[4]
    )
    fasta = real_data / "hg19/genome/hg19_mini.fa.gz"
    vcfs = real_data / "hg19/vcf"
    found = sorted(vcfs.glob("*.vcf.gz"))
    assert found
    for vcf in found:
        run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / vcf.name, workers=0)
        counts = run.counts
        assert counts["read"] == counts["scored"] + sum(counts["skipped"].values()) > 500
        # The cut genome ends early on some contigs, which is where `bad_pos` comes from.
        expected = {"spanning_del", "symbolic", "no_alt", "bad_pos", "ref_mismatch"}
        assert set(counts["skipped"]) <= expected, counts
        assert counts["skipped"].get("ref_mismatch", 0) <= 0.01 * counts["read"], counts


def test_how_many_actors() -> None:
    from raygenome.cluster.compute import Compute
    from raygenome.cluster.resources import Machines
    from raygenome.genome.alleles import Shard
    from raygenome.scoring.workers import Workers

    def count(
        rows: int, shards: int, *, workers: int | None = None, device: Any = "cpu", **host: Any
    ) -> int:
        cut = [Shard(i, "1", "chr1", i * rows, (i + 1) * rows) for i in range(shards)]
        share = host.pop("share", None)
        machines = Machines(**{"cores": 4, "gpus": 0, **host})
        compute = Compute(workers, device, worker_gpus=share)
        return Workers(compute, machines, "cpu", "2").count(cut)

    assert count(50_000, 1) == 0  # one shard: nothing to share
    assert count(50_000, 3) == 3
    assert count(50_000, 30) == 4
    assert count(100, 30) == 0  # Ray would take longer to start
    assert count(100, 30, cluster=True) == 4
    assert count(100, 1, cluster=True) == 1
    assert count(100, 30, workers=2) == 2
    assert count(50_000, 30, cores=1) == 0
    assert count(50_000, 30, gpus=8, device="cuda") == 8
    assert count(50_000, 30, gpus=8, device="cuda", share=0.5) == 16
    assert count(50_000, 5, gpus=8, device="cuda", cluster=True) == 5


@pytest.mark.slow
def test_the_disk_estimate_covers_what_a_run_takes(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is largest just before ranking: parts, and the strongest effects of each target."""
    from raygenome.results.run_dir import RunDir
    from raygenome.scoring import run as story
    from raygenome.scoring.estimate import dry_run

    inputs["model"] = write_model(tmp_path / "wide", **{**STUB, "targets": 400})
    sizes = []

    def measure(run: RunDir, *_: object) -> None:
        sizes.append(sum(run.store.sizes().values()))
        raise KeyboardInterrupt

    monkeypatch.setattr(story, "_rank", measure)
    for number, options in enumerate(({}, {"log_odds": True}, {"effects": "top"})):
        with pytest.raises(KeyboardInterrupt):
            raygenome.score(**inputs, out=tmp_path / str(number), workers=0, **options)
        estimate = dry_run(**inputs, workers=0, **options)["bytes"]
        assert 0.4 * estimate < sizes[-1] < estimate


def test_an_input_with_nothing_to_score_is_logged(
    tmp_path: Path, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    inputs["vcf"] = write_vcf(tmp_path / "n.vcf", [("chrUn", 5, ".", "A", "C")] * 3)
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    assert run.counts["scored"] == 0
    assert "none of the 3 alleles" in caplog.text
    assert "most are: unknown_contig" in caplog.text
