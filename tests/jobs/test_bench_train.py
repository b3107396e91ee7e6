"""Tests of the training benchmark and of the comparison of recipes, at a tiny size."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import JOBS
from support.small_training import recipe, write_dataset, write_recipe

from raygenome.errors import UsageError
from raygenome.training.run import train

#: Packages that a machine with a GPU and torch may lack.
LACKING = ("ray", "pysam", "duckdb", "cyvcf2", "pyfaidx", "matplotlib", "h5py", "sklearn")


def on_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts Ray; Ray warns of its own settings and of sockets left open."""
    for name in (
        "DeprecationWarning",
        "ResourceWarning",
        "pytest.PytestUnraisableExceptionWarning",
    ):
        test = pytest.mark.filterwarnings(f"ignore::{name}")(test)
    return pytest.mark.slow(pytest.mark.ray(test))


@pytest.mark.slow
def test_train(capsys: pytest.CaptureFixture[str]) -> None:
    from bench import program

    program.main(["train", "--model", "stub", "--rounds", "1", "--steps", "3", "--json"])
    table, _, figures = capsys.readouterr().out.partition("\n[\n")
    assert "of matmul" in table
    (row,) = json.loads("[" + figures)
    assert (row["batch"], row["steps"]) == (8, 3)
    assert row["ratio"] == pytest.approx(row["worker"] / row["plain"])
    assert row["epoch_s"] == pytest.approx(4_400_000 / row["worker"])
    assert row["gathered_x"] > row["encoded_x"] > 1
    assert 0 < row["share"] < 1


@pytest.mark.slow
def test_train_needs_torch_and_no_ray() -> None:
    code = f"""
import sys
for name in {LACKING}:
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, {str(JOBS)!r})
from bench import program
program.main(["train", "--model", "stub", "--rounds", "1", "--steps", "2"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of matmul" in done.stdout


@pytest.mark.slow
def test_both_take_the_same_steps_but_for_dropout(tmp_path: Path) -> None:
    """The comparison is fair: both loops do the same work, and their losses fall alike."""
    from bench import train as bench_train

    made = bench_train.bench_recipe("stub", "fp32", 64, 15)
    made = made.model_copy(update={"net": {**made.net, "dropout": 0.0}})
    data = bench_train.make_dataset(tmp_path / "data", "stub", rows=1000)
    torch.manual_seed(0)
    plain = bench_train.PlainLoop(made, data, "cpu")
    worker = bench_train.Steps(made, data, tmp_path / "run", "cpu")
    plain.net.load_state_dict(worker.net.state_dict())
    split = data.split("train")
    assert plain._windows_NLC.shape == (2 * split.n_rows, split.window_size, 4)
    by_hand = [plain.run(15) for _ in range(3)]
    for _ in range(3):
        worker.epoch()
    windows = plain._windows_NLC[:500].transpose(1, 2)
    with torch.inference_mode():
        ours, theirs = worker.net.eval()(windows), plain.net.eval()(windows)
    labels = plain._labels_NT[:500]
    losses = [
        float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))
        for logits in (ours, theirs)
    ]
    assert by_hand[-1] < by_hand[0]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_multiply_adds_are_those_of_the_layers() -> None:
    from bench import train as bench_train

    # 60 bases, 4 channels of 5 bases: 56 places; a pool of 8 leaves 7, all of which 4 units see.
    assert bench_train.multiply_adds("stub") == 56 * 4 * 20 + 4 * 28 + 3 * 4
    assert bench_train.multiply_adds("deepsea") == (
        993 * 320 * 32 + 241 * 480 * 2560 + 53 * 960 * 3840 + 925 * 50880 + 919 * 925
    )


@pytest.mark.campaign
@on_ray
def test_one_worker_against_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import program
    from bench import train as bench_train

    monkeypatch.setattr(bench_train, "_SHARED_TURNS", 1)

    arguments = ["--model", "stub", "--rounds", "1", "--steps", "2", "--workers-check", "--json"]
    program.main(["train", *arguments])
    (row,) = json.loads("[" + capsys.readouterr().out.partition("\n[\n")[2])
    assert len(row["workers"]["one"]) == len(row["workers"]["two"]) == 3
    assert row["workers"]["ratio"] > 0


def test_what_the_machine_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import program

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"bench: [^\n]*cuda"):
        program.main(["train", "--model", "stub", "--device", "cuda"])


@pytest.mark.slow
def test_recipes_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments import compare_recipes

    data = write_dataset(tmp_path / "data")
    first = write_recipe(tmp_path / "slow.yaml")
    second = write_recipe(tmp_path / "quick.yaml", batch_size=10)
    arguments = [str(first), str(second), "--data", str(data), "--out", str(tmp_path / "out")]
    compare_recipes.main([*arguments, "--epochs", "2", "--json"])
    table, _, figures = capsys.readouterr().out.partition("\n[\n")
    assert "of the first's" in table
    rows = json.loads("[" + figures)
    assert [row["name"] for row in rows] == ["slow", "quick"]
    assert rows[0]["reached"] == rows[0]["seconds"]
    with pytest.raises(SystemExit, match=r"compare_recipes: .*--resume"):
        compare_recipes.main(arguments)


def test_the_first_recipe_sets_the_mark() -> None:
    from experiments.compare_recipes import compare

    def log(*losses: float) -> list[dict]:
        return [
            {"epoch": i, "seconds": 10.0 * i, "valid_loss": loss, "valid_auroc": None}
            for i, loss in enumerate(losses, 1)
        ]

    found = compare({"a": log(0.5, 0.3, 0.4), "b": log(0.4, 0.3, 0.2), "c": log(0.6, 0.31)})
    assert [row.loss for row in found] == [0.3, 0.2, 0.31]
    assert [row.seconds for row in found] == [20.0, 30.0, 20.0]
    assert [row.reached for row in found] == [20.0, 20.0, None]


# --------------------------------------------------------------------------------------------
# train(threads=)


@pytest.mark.slow
def test_threads_are_the_runs_and_the_callers_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raygenome.training.loop import Worker

    seen = []
    step = Worker._step

    def watched(self: Worker, batch: object) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return step(self, batch)

    monkeypatch.setattr(Worker, "_step", watched)
    data = write_dataset(tmp_path / "data")
    before = torch.get_num_threads()
    chosen = {"data": data, "workers": 0, "device": "cpu"}
    train(recipe(epochs=1), out=tmp_path / "two", threads=before + 1, **chosen)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    seen.clear()
    train(recipe(epochs=1), out=tmp_path / "said", **chosen)
    assert set(seen) == {before}


@pytest.mark.parametrize("threads", [0, -1, True])
def test_no_threads_are_refused(tmp_path: Path, threads: int) -> None:
    data = write_dataset(tmp_path / "data")
    with pytest.raises(UsageError, match=rf"--threads is {threads}; .* at least 1"):
        train(recipe(), data=data, out=tmp_path / "run", threads=threads)
    assert not (tmp_path / "run").exists()


@on_ray
def test_workers_on_ray_have_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raygenome.training import workers

    data = write_dataset(tmp_path / "data")
    seen = tmp_path / "threads"
    work = workers._work

    def watched(config: dict[str, Any]) -> None:
        work(config)
        import torch

        seen.write_text(str(torch.get_num_threads()))

    monkeypatch.setattr(workers, "_work", watched)
    train(recipe(epochs=1), data=data, out=tmp_path / "run", workers=1, device="cpu", threads=3)
    assert seen.read_text() == "3"
