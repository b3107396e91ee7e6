"""Interruptions: crashes, kills, signals, full disks; committed shards are kept."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.builders import random_genome, write_fasta, write_model, write_vcf
from support.small_run import RECORDS, contents, make_inputs, parts

import raygenome
from raygenome.cluster.compute import Compute
from raygenome.errors import DataError, NoInput, OutputError, RaygenomeError, StorageError
from raygenome.genome.alleles import Shard
from raygenome.results.run_dir import RunDir, read_run
from raygenome.scoring import resume as resuming
from raygenome.scoring.inputs import open_inputs
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.shard import Scorer, ScorerConfig, scorer_config


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    return make_inputs(tmp_path)


class Crash(Exception):  # noqa: N818
    """Raised by tests to simulate a power cut."""


@pytest.mark.slow
def test_resume_redoes_only_what_was_not_committed(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**inputs, "workers": 0, "shard_size": 50}
    whole = raygenome.score(**options, out=tmp_path / "whole")
    score_shard = Scorer.score_shard
    scored: list[int] = []

    def dying(self: Scorer, shard: Any) -> dict[str, Any]:
        if len(scored) == 5:
            raise Crash
        scored.append(shard.index)
        return score_shard(self, shard)

    monkeypatch.setattr(Scorer, "score_shard", dying)
    for _ in range(20):
        del scored[:]
        try:
            run = raygenome.score(**options, out=tmp_path / "run", resume=True)
            break
        except Crash:
            assert not (tmp_path / "run" / "_SUCCESS").exists()
    monkeypatch.undo()
    assert contents(run.path) == contents(whole.path)
    again = raygenome.score(**options, out=tmp_path / "run", resume=True)
    assert again.document == run.document


def command(inputs: dict[str, Any], out: Path, *more: str) -> list[str]:
    """Return a command line that scores `inputs` without Ray, with --resume."""
    given = ["--model", inputs["model"], "--fasta", inputs["fasta"], "--out", out]
    words = ["score", inputs["vcf"], *given, "--workers", "0", "--resume", *more]
    return [sys.executable, "-m", "raygenome", *map(str, words)]


def wait_for_receipts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Return once the run has committed `count` parts, or its process has ended."""
    receipts = out / ".work" / "receipts"
    deadline = time.monotonic() + 60
    while len(list(receipts.rglob("*.json"))) < count:
        assert time.monotonic() < deadline
        if process.poll() is not None:
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments_then_resumed(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """A real process is killed; the result has the same bytes, and no working files are left."""
    whole = raygenome.score(**inputs, out=tmp_path / "whole", workers=0, shard_size=4)
    shards = len(whole.document["parts"])
    seed = int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for kill in (1, 3):
        process = subprocess.Popen(
            command(inputs, tmp_path / "run", "--shard-size", "4"),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_receipts(tmp_path / "run", kill * shards // 6, process)
        time.sleep(float(rng.uniform(0, 0.05)))
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()
    done = subprocess.run(
        command(inputs, tmp_path / "run", "--shard-size", "4"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "shards are committed already" in done.stderr
    assert contents(tmp_path / "run") == contents(whole.path)
    assert not (tmp_path / "run" / ".work").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_it_resumes(
    tmp_path: Path, inputs: dict[str, Any], number: int, code: int
) -> None:
    process = subprocess.Popen(
        command(inputs, tmp_path / "run", "--shard-size", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_receipts(tmp_path / "run", 4, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "--resume" in errors
    assert "Traceback" not in errors
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=1, resume=True)
    assert run.counts["scored"] == len(parts(run.path))


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("what", ["vcf", "fasta", "model", "option"])
def test_resume_refuses_another_run_naming_both_values(
    tmp_path: Path,
    inputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    finished: bool,
) -> None:
    if not finished:
        monkeypatch.setattr(Scorer, "score_shard", lambda *_: (_ for _ in ()).throw(Crash))
    with contextlib.suppress(Crash):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    changed = dict(inputs)
    names = r"vcf sha256 \w{64}, this is vcf sha256 \w{64}"
    if what == "vcf":
        changed["vcf"] = write_vcf(tmp_path / "w.vcf", RECORDS[:-1])
    elif what == "fasta":
        changed["fasta"] = write_fasta(tmp_path / "other.fa", random_genome(4, chr1=5000))
        names = r"fasta sha256 \w{64}, this is"
    elif what == "model":
        changed["model"] = write_model(tmp_path / "other", seed=1)
        names = r"model sha256 \w{64}, this is"
    else:
        changed["indel_mode"] = "left-anchor"
        names = "indel_mode symmetric, this is indel_mode left-anchor"
    with pytest.raises(DataError, match=names):
        raygenome.score(**changed, out=tmp_path / "run", workers=0, resume=True)


def test_an_existing_output_is_kept(tmp_path: Path, inputs: dict[str, Any]) -> None:
    out = tmp_path / "run"
    first = raygenome.score(**inputs, out=out, workers=0)
    with pytest.raises(OutputError, match="a finished scoring run; add --resume or --overwrite"):
        raygenome.score(**inputs, out=out, workers=0)
    second = raygenome.score(**inputs, out=out, workers=0, overwrite=True, strands="forward")
    assert second.document["config"]["strands"] == "forward"
    assert second.document["parts"] != first.document["parts"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds no scoring run"):
            raygenome.score(**inputs, out=tmp_path / "mine", workers=0, overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        raygenome.score(**inputs, out=tmp_path / "file", workers=0)


def test_two_runs_cannot_write_one_directory(tmp_path: Path, inputs: dict[str, Any]) -> None:

    run = RunDir(tmp_path / "run")
    with run.lock(), pytest.raises(OutputError, match="being written by another"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0, resume=True)


def test_the_disk_is_checked_before_work(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(StorageError, match=r"1\.0 kB free and the run needs"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    assert not list((tmp_path / "run").rglob("part-*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["plan", "part", "rank", "run.json"])
def test_a_full_disk_is_one_line_and_resumes(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    whole = raygenome.score(**inputs, out=tmp_path / "whole", workers=0, shard_size=100)
    from raygenome.storage import files

    replace = os.replace
    marks = {"plan": "plan", "part": "part-00003.parquet", "rank": "targets.parquet"}

    def full(source: Any, target: Any) -> None:
        if Path(target).name == marks.get(stage, stage):
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=100)
    assert not (tmp_path / "run" / "_SUCCESS").exists()
    monkeypatch.undo()
    run = raygenome.score(
        **inputs, out=tmp_path / "run", workers=0, shard_size=100, resume=stage != "plan"
    )
    assert contents(run.path) == contents(whole.path)
    assert not list(run.path.rglob("*.tmp"))


def test_shards_that_fail_leave_the_rest_committed(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygenome import pool
    from raygenome.errors import PartialFailure

    def all_but_two(shards: Any, make_scorer: Any, _: Any, *, on_receipt: Any, **__: Any) -> Any:
        scorer = make_scorer()
        for shard in shards[2:]:
            on_receipt(scorer.score_shard(shard))
        return [pool.ShardFailure(shard, "the actor died", 3) for shard in shards[:2]]

    options = {**inputs, "out": tmp_path / "run", "shard_size": 100}
    with monkeypatch.context() as patch:
        patch.setattr(pool, "run_shards", all_but_two)
        with pytest.raises(PartialFailure, match=r"2 of 6 shards failed.*: the actor died; "):
            raygenome.score(**options, workers=2)
    failed = json.loads((tmp_path / "run" / "failed.json").read_text())["shards"]
    assert {shard["cause"] for shard in failed} == {"the actor died"}
    assert json.loads((tmp_path / "run" / "progress.json").read_text())["state"] == "failed"
    committed = set((tmp_path / "run").rglob("part-*.parquet"))
    run = raygenome.score(**options, workers=0, resume=True)
    parts_of = {part["shard"]: part for part in run.document["parts"]}
    for shard in failed:
        part = parts_of[shard["shard"]]
        assert {name: shard[name] for name in ("chrom", "rows", "first_pos", "last_pos")} == {
            name: part[name] for name in ("chrom", "rows", "first_pos", "last_pos")
        }
    assert len(set(run.path.rglob("part-*.parquet")) - committed) == 2
    assert not (run.path / "failed.json").exists()


def progress_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "progress.json").read_text())


def test_the_progress_of_a_complete_run_is_corrected(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped just after its end would otherwise be shown as stopped for ever."""
    options = {**inputs, "workers": 0, "out": tmp_path / "run", "shard_size": 100}
    run = raygenome.score(**options)
    before = progress_of(run.path)
    (run.path / "progress.json").write_text(json.dumps({**before, "state": "stopped", "done": 0}))
    monkeypatch.setenv("RAYGENOME_JOB", "again")
    raygenome.score(**options, resume=True)
    parts, scored = len(run.document["parts"]), run.counts["scored"]
    wanted = {"state": "done", "done": scored, "total": scored, "job": "again", "error": None}
    wanted |= {"shards_done": parts, "shards": parts, "seconds_left": None}
    assert {name: progress_of(run.path)[name] for name in wanted} == wanted


def test_the_progress_of_a_resumed_run_without_shards_to_score(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygenome.ranking import rank

    def dying(*_: Any, **__: Any) -> None:
        raise Crash

    options = {**inputs, "workers": 0, "out": tmp_path / "run", "shard_size": 100}
    monkeypatch.setattr(rank, "rank_run", dying)
    for resume in (False, True):
        with pytest.raises(Crash):
            raygenome.score(**options, resume=resume)
        found = progress_of(tmp_path / "run")
        assert found["state"] == "failed"
        assert found["done"] == found["total"] > 0
        assert found["shards_done"] == found["shards"] == 6


def test_resume_removes_the_list_of_failed_shards_first(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(inputs, tmp_path / "run", monkeypatch)
    failed = tmp_path / "run" / "failed.json"
    failed.write_text("{}")

    def dying(*_: Any) -> None:
        assert not failed.exists()
        raise Crash

    monkeypatch.setattr(Scorer, "score_shard", dying)
    with pytest.raises(Crash):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=50, resume=True)


@pytest.mark.parametrize("wrong", ["typo", "build", "disk"])
def test_overwrite_keeps_the_old_run_until_the_new_is_planned(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    run = raygenome.score(**inputs, out=tmp_path / "run", workers=0)
    before = contents(run.path)
    changed = dict(inputs)
    if wrong == "typo":
        changed["vcf"] = tmp_path / "typo.vcf"
    elif wrong == "build":
        changed["fasta"] = write_fasta(tmp_path / "other.fa", random_genome(9, chr1=5000))
    else:
        monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
    with pytest.raises(RaygenomeError):
        raygenome.score(**changed, out=run.path, workers=0, overwrite=True)
    assert contents(run.path) == before
    assert read_run(run.path) == run.document


def test_an_existing_directory_is_kept(tmp_path: Path, inputs: dict[str, Any]) -> None:
    (tmp_path / "mine").mkdir()
    for out in ("mine", "new"):
        with pytest.raises(NoInput):
            raygenome.score(**{**inputs, "vcf": "nowhere.vcf"}, out=tmp_path / out, workers=0)
    assert list((tmp_path / "mine").iterdir()) == []
    assert not (tmp_path / "new").exists()


def interrupted(inputs: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an interrupted run with three committed shards."""
    score_shard = Scorer.score_shard

    def dying(self: Scorer, shard: Any) -> dict[str, Any]:
        if shard.index == 3:
            raise Crash
        return score_shard(self, shard)

    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(Scorer, "score_shard", dying)
        raygenome.score(**inputs, out=out, workers=0, shard_size=50)


@pytest.mark.parametrize("field", ["channels", "n_value", "centre", "targets.tsv"])
def test_resume_refuses_a_model_with_other_answers(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    interrupted(inputs, tmp_path / "run", monkeypatch)
    path = inputs["model"] / ("model.json" if field != "targets.tsv" else field)
    if field == "targets.tsv":
        path.write_text(path.read_text().replace("target_0", "another"))
    else:
        other = {"channels": "TGAC", "n_value": 0.1, "centre": 12}[field]
        path.write_text(json.dumps({**json.loads(path.read_text()), field: other}))
    with pytest.raises(DataError, match=r"model sha256 \w{64}, this is model sha256"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=50, resume=True)


def config_of(inputs: dict[str, Any], out: Path) -> ScorerConfig:
    with open_inputs(**inputs, compute=Compute(0, "cpu"), options=ScoreOptions()) as opened:
        return scorer_config(RunDir(out), opened, {})


@pytest.mark.parametrize("what", ["model", "fasta"])
def test_a_late_worker_refuses_inputs_that_were_swapped(
    tmp_path: Path, inputs: dict[str, Any], what: str
) -> None:
    config = config_of(inputs, tmp_path / "run")
    Scorer(config).close()
    if what == "model":
        shutil.rmtree(inputs["model"])
        write_model(inputs["model"], seed=5)
    else:
        inputs["fasta"].write_text(inputs["fasta"].read_text().replace("A", "C", 1))
    with pytest.raises(DataError, match="has changed since the run started"):
        Scorer(config)


def test_a_worker_that_does_not_see_the_run_is_an_error(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    scorer = Scorer(config_of(inputs, tmp_path / "elsewhere"))
    with pytest.raises(StorageError, match=r"this worker sees no plan in .*; put --out where"):
        scorer.score_shard(Shard(0, "chr1", "chr1", 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["part", "receipt", "tops", "summary"])
def test_damaged_shards_are_scored_again(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    whole = raygenome.score(**inputs, out=tmp_path / "whole", workers=0, shard_size=50)
    out = tmp_path / "run"
    interrupted(inputs, out, monkeypatch)
    pattern = {
        "part": "part-00001.parquet",
        "receipt": "part-00001.json",
        "tops": "tops/*/part-00001",
        "summary": "summaries/*/part-00001",
    }
    (path,) = out.rglob(pattern[damage])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage != "receipt" else b"")
    run = raygenome.score(**inputs, out=out, workers=0, shard_size=50, resume=True)
    assert contents(run.path) == contents(whole.path)


def test_a_plan_of_another_version_is_refused(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(inputs, tmp_path / "run", monkeypatch)
    path = tmp_path / "run" / ".work" / "plan" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(DataError, match="written by another version"):
        raygenome.score(**inputs, out=tmp_path / "run", workers=0, shard_size=50, resume=True)


def test_an_unchanged_vcf_is_not_read_again(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**inputs, "out": tmp_path / "run", "workers": 0, "shard_size": 50, "resume": True}
    interrupted(inputs, tmp_path / "run", monkeypatch)
    digest_input = resuming.digest_input
    read: list[str] = []
    monkeypatch.setattr(resuming, "digest_input", lambda vcf: read.append(vcf) or digest_input(vcf))
    raygenome.score(**options)  # continues the run
    raygenome.score(**options)  # finds it complete
    assert read == []
    inputs["vcf"].touch()
    raygenome.score(**options)  # the file may have changed, so it is read, and has not
    assert read == [str(inputs["vcf"])]


@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_vcf_is_refused_whatever_its_size_and_time(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, finished: bool
) -> None:
    options = {**inputs, "out": tmp_path / "run", "workers": 0, "shard_size": 50, "resume": True}
    if finished:
        raygenome.score(**options)
    else:
        interrupted(inputs, tmp_path / "run", monkeypatch)
    before = inputs["vcf"].stat()
    text = inputs["vcf"].read_text()
    middle = text.index("chr1\t", len(text) // 3)
    inputs["vcf"].write_text(text[:middle] + "chr2\t" + text[middle + 5 :])
    os.utime(inputs["vcf"], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = inputs["vcf"].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(DataError, match=r"was started with vcf sha256 \w{64}, this is vcf sha256"):
        raygenome.score(**options)


def test_the_disk_is_checked_on_resume_for_what_is_left(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(inputs, tmp_path / "run", monkeypatch)
    options = {**inputs, "out": tmp_path / "run", "workers": 0, "shard_size": 50, "resume": True}
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
        with pytest.raises(StorageError, match="kB free and the run"):
            raygenome.score(**options)
    run = raygenome.score(**options)
    assert run.counts["scored"] == len(parts(run.path))
