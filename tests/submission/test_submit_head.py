"""Jobs on a real head that requires a token, with raygenome installed from a wheel."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import random_genome, random_records, write_fasta, write_model, write_vcf
from support.paths import ROOT as CHECKOUT
from support.ray_head import RayHead, ray_head
from support.small_run import contents, make_inputs

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which only a wheel of this checkout is installed."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "raygenome"):
        (source / name).symlink_to(CHECKOUT / name)
    offline = ["--no-deps", "--no-index"]
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run(
        [*pip, "wheel", *offline, "--no-build-isolation", "-w", built, source],
        **run,  # type: ignore[call-overload]
    )
    (wheel,) = built.glob("raygenome-*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder, wheel], **run)  # type: ignore[call-overload]
    return folder


@pytest.fixture(scope="module")
def head(installed: Path) -> Iterator[RayHead]:
    with ray_head(path=[installed / "bin"], python_path=[installed]) as head:
        yield head


def client_environment(head: RayHead) -> dict[str, str]:
    """Return the environment of a raygenome of this checkout, for this head."""
    variables = {"RAY_API_SERVER_ADDRESS": head.url, "PYTHONPATH": str(CHECKOUT)}
    return {**head.environment(), **variables}


Raygenome = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def raygenome(head: RayHead, tmp_path: Path) -> Raygenome:
    """Return a function that runs this checkout's raygenome as a client of the head."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raygenome", *map(str, words)],
            env={**client_environment(head), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def score_words(inputs: dict[str, Any], out: Path, *more: object) -> list[str]:
    words = ["score", inputs["vcf"], "--model", inputs["model"], "--fasta", inputs["fasta"]]
    return [str(word) for word in [*words, "--out", out, *more]]


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("raygenome: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_request_without_the_token_says_what_is_missing(
    head: RayHead, raygenome: Raygenome, tmp_path: Path
) -> None:
    words = ["submit", "--", *score_words({"vcf": "v", "model": "m", "fasta": "g"}, tmp_path)]
    message = one_line(
        raygenome(*words, RAY_AUTH_MODE="", RAY_AUTH_TOKEN="", HOME=str(tmp_path)), 2
    )
    assert "requires a token (401); set RAY_AUTH_MODE=token, and set RAY_AUTH_TOKEN" in message
    message = one_line(raygenome(*words, RAY_AUTH_TOKEN="x" * 64), 2)
    assert "refuses the token that is set here (403)" in message
    message = one_line(raygenome("jobs", "list", "--address", head.gcs), 2)
    assert "is not a Ray dashboard (no HTTP); give the URL of the dashboard" in message
    message = one_line(raygenome("jobs", "list", "--address", head.url.replace("p:", "ps:", 1)), 2)
    assert "does not speak TLS" in message
    assert "raygenome has sent no job to" in raygenome("jobs", "list").stdout


def test_a_job_gives_the_same_result_as_a_run_here(
    head: RayHead, raygenome: Raygenome, tmp_path: Path
) -> None:
    """The BED file is uploaded; both see the data; the workers are the cluster's."""
    inputs = make_inputs(tmp_path)
    (tmp_path / "some.bed").write_text("chr1\t0\t4000\nchr2\t100\t2900\n")
    options = ["-R", "some.bed", "--shard-size", "100"]
    here = raygenome(*score_words(inputs, tmp_path / "here", "--workers", 0, *options))
    assert here.returncode == 0, here.stderr

    words = score_words(inputs, Path("there"), "--workers", 2, *options)
    done = raygenome("submit", "--follow", "--id", "first", "--", *words)
    assert done.returncode == 0, done
    assert done.stdout.startswith("first\n")
    assert done.stderr == ""
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith(f"wrote     {tmp_path}/there")

    taken = raygenome("submit", "--id", "first", "--", *words)
    assert "there is already a job 'first' at" in one_line(taken, 2)

    shown = json.loads(raygenome("jobs", "status", "first", "--json").stdout)
    assert (shown["state"], shown["exit_code"]) == ("succeeded", 0)
    assert shlex.split(shown["command"])[-2:] == ["--regions-file", f"{tmp_path}/some.bed"]
    listed = json.loads(raygenome("jobs", "list", "--json").stdout)
    assert [job["id"] for job in listed][-1] == "first"
    log = raygenome("jobs", "logs", "first").stdout
    assert done.stdout == f"first\n{log}"
    assert head.token not in log + json.dumps(shown)


def test_a_job_exits_as_its_command_does(raygenome: Raygenome, tmp_path: Path) -> None:
    inputs = {**make_inputs(tmp_path), "vcf": tmp_path / "nix.vcf"}
    words = score_words(inputs, tmp_path / "run", "--workers", 0)
    done = raygenome("submit", "--follow", "--json", "--", *words)
    assert done.returncode == 66
    first, *log = done.stdout.splitlines()
    job = json.loads(first)["id"]
    assert job.startswith("raygenome-score-")
    assert "nix.vcf" in log[-1]
    shown = raygenome("jobs", "status", job).stdout
    assert "state     failed (66)" in shown
    assert f"\nwhy       {log[-1]}\n" in shown
    assert raygenome("jobs", "logs", job, "--follow").returncode == 66


def test_an_unknown_job_is_one_line(raygenome: Raygenome) -> None:
    for words in (["status"], ["logs"], ["logs", "--follow"], ["stop"]):
        assert "there is no job 'nix' at" in one_line(raygenome("jobs", *words, "nix"), 66)


@pytest.mark.campaign
def test_a_stopped_job_is_resumed(head: RayHead, raygenome: Raygenome, tmp_path: Path) -> None:
    genome = random_genome(5, chr1=200_000)
    inputs = {
        "vcf": write_vcf(tmp_path / "v.vcf", random_records(genome, 9_000)),
        "model": write_model(tmp_path / "stub"),
        "fasta": write_fasta(tmp_path / "g.fa", genome),
    }
    options = ["--workers", 0, "--shard-size", 10]
    done = raygenome("submit", "--", *score_words(inputs, tmp_path / "run", *options))
    assert done.returncode == 0, done
    job = done.stdout.strip()
    parts = tmp_path / "run" / "scores" / "chrom=chr1"
    await_that(lambda: parts.is_dir() and len(list(parts.iterdir())) > 20)
    stopped = raygenome("jobs", "stop", job)
    assert stopped.returncode == 0, stopped
    first, *_, resume = stopped.stdout.splitlines()
    assert first == f"{job}: stopped (143)"
    assert not (tmp_path / "run" / "_SUCCESS").exists()
    log = raygenome("jobs", "logs", job, "--follow")
    assert log.returncode == 143
    assert "terminated; repeat the command with --resume to continue" in log.stdout
    assert raygenome("jobs", "stop", job).stdout.startswith(f"{job}: had already ended: stopped")

    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    program, submit, *words = shlex.split(resume)
    assert [program, submit, words[0]] == ["raygenome", "submit", "--resume"]
    job = left_by_ctrl_c(head, tmp_path, [submit, "--follow", *words])
    assert raygenome("jobs", "logs", job, "--follow").returncode == 0
    # A part without a receipt when the signal came is not committed.
    redone = [name for name, at in before.items() if (parts / name).stat().st_mtime_ns != at]
    assert len(redone) <= 1
    assert "progress  done: 9,0" in raygenome("jobs", "status", job).stdout

    here = raygenome(*score_words(inputs, tmp_path / "here", *options))
    assert here.returncode == 0, here.stderr
    assert contents(tmp_path / "run") == contents(tmp_path / "here")


def left_by_ctrl_c(head: RayHead, folder: Path, words: list[str]) -> str:
    """Follow a job until it runs, leave it by Ctrl-C, and return its id."""
    following = subprocess.Popen(
        [sys.executable, "-m", "raygenome", *words],
        env=client_environment(head),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    job = following.stdout.readline().strip()
    while "Running entrypoint" not in following.stdout.readline():
        assert following.poll() is None
    following.send_signal(signal.SIGINT)
    _, message = following.communicate(timeout=60)
    assert following.returncode == 130
    assert message.startswith(
        "raygenome: the job continues; follow it again with `raygenome jobs logs "
    )
    assert message.count("\n") == 1
    return job


def test_a_job_runs_the_raygenome_of_the_cluster(
    head: RayHead, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reported by a job: by its driver, and by a worker of the cluster."""
    for name, value in head.environment().items():
        if name.startswith("RAY_"):
            monkeypatch.setenv(name, value)
    look = tmp_path / "look.py"
    look.write_text(
        "import os, ray, raygenome.scoring.shard\n"
        "file = lambda: (raygenome.__file__, os.getcwd())\n"
        "ray.init(log_to_driver=False)\n"
        "print('found', file(), ray.get(ray.remote(file).remote()))\n"
    )
    code = (
        "import sys; from raygenome.submission.client import RayJobsClient\n"
        "head = RayJobsClient(sys.argv[1])\n"
        "env = {'working_dir': sys.argv[2]}\n"
        "head.submit(f'command -v raygenome; exec {sys.executable} look.py', 'look', env, {})\n"
        "head.follow('look', sys.stdout.write)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, head.url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 0, done.stderr
    assert f"\n{installed}/bin/raygenome\n" in done.stdout
    found = done.stdout.splitlines()[-1]
    assert found.count(f"'{installed}/raygenome/__init__.py'") == 2, done.stdout
    assert found.count("working_dir_files") == 2
    assert str(CHECKOUT) not in found


def await_that(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
