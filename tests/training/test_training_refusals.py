"""Errors that training reports before it starts, and stopped runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import load_model
from support.small_training import (
    Told,
    log_of,
    planted,
    recipe,
    train,
    weights_of,
    write_dataset,
    write_packed,
)

from raygenome.cluster.compute import Compute
from raygenome.cluster.resources import Machines
from raygenome.errors import (
    DataError,
    NoInput,
    OutputError,
    RaygenomeError,
    StorageError,
    UsageError,
)
from raygenome.storage import store
from raygenome.training import loop, run_dir
from raygenome.training import run as training
from raygenome.training.config import make_config
from raygenome.training.run import TrainingRun, read_training, wanted_workers

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Machines(cores=2, gpus=0)


def cpu(workers: Any) -> Compute:
    return Compute(workers=workers, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """Return a run that nobody changes."""
    torch.set_num_threads(1)
    return train(data, tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.slow
def test_a_folder_with_a_run_needs_resume_or_fresh(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(data, out)
    with pytest.raises(OutputError, match=r"holds a finished training run; add --resume or --fr"):
        train(data, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    again = train(data, out, resume=True)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fresh = train(data, out, changes={"seed": 8}, fresh=True)
    assert fresh.document["config"]["seed"] == 8
    assert weights_of(out) == weights_of(train(data, tmp_path / "8", changes={"seed": 8}).path)


@pytest.mark.slow
def test_resume_where_nothing_is_begins(data: Path, tmp_path: Path, finished: TrainingRun) -> None:
    (tmp_path / "run").mkdir()
    run = train(data, tmp_path / "run", resume=True)
    assert weights_of(run.path) == weights_of(finished.path)


def test_resume_and_fresh_contradict_each_other(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        train(data, tmp_path / "run", resume=True, fresh=True)


def stopped_run(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Leave a run that was stopped in its second epoch."""
    step = loop.Worker._step

    def stopping(worker: loop.Worker, batch: Any) -> torch.Tensor:
        if worker.state.step == 14:
            raise KeyboardInterrupt
        return step(worker, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Worker, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(data, out, changes=changes)


@pytest.mark.slow
def test_an_unfinished_run_needs_resume_or_fresh(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainingRun
) -> None:
    out = tmp_path / "run"
    stopped_run(data, out, monkeypatch)
    assert not (out / "run.json").exists()
    assert len(log_of(out)) == 1, "the log and the model of the first epoch are there"
    load_model(out / "model")
    with pytest.raises(OutputError, match=r"holds an unfinished training run; add --resume or"):
        train(data, out)
    with pytest.raises(DataError, match="no finished training run; continue it with --resume"):
        read_training(out)
    progress = Told()
    train(data, out, resume=True, progress=progress)
    assert progress.calls[0] == ("begin", "training", 600, 200, "samples")
    assert weights_of(out) == weights_of(finished.path)
    assert log_of(out) == log_of(finished.path)


@pytest.mark.slow
def test_fresh_forgets_an_unfinished_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainingRun
) -> None:
    out = tmp_path / "run"
    stopped_run(data, out, monkeypatch, seed=7)
    train(data, out, fresh=True)
    assert weights_of(out) == weights_of(finished.path)
    assert log_of(out) == log_of(finished.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 9}, "seed: 5, the config now has 9"),
        ({"epochs": 4}, "epochs: 3, the config now has 4"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}}, r"optimizer: .*, the config now has"),
    ],
)
def test_resume_with_another_recipe_names_what_differs(
    finished: TrainingRun, data: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"was started with {message}.*--fresh") as caught:
        train(data, finished.path, changes=changes, resume=True)
    assert "\n" not in str(caught.value)


def test_resume_with_other_data_is_refused(finished: TrainingRun, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="was started with other data; add --fresh"):
        train(other, finished.path, resume=True)


@pytest.mark.parametrize("option", ["resume", "fresh"])
def test_a_folder_of_somebody_elses_is_left_alone(data: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "mine").mkdir()
    note = tmp_path / "mine" / "thesis.txt"
    note.write_text("years of work")
    with pytest.raises(OutputError, match="is not empty and holds no training run"):
        train(data, note.parent, **{option: True})
    with pytest.raises(OutputError, match="is a file; --out needs a directory"):
        train(data, note, **{option: True})
    assert note.read_text() == "years of work"
    assert [path.name for path in note.parent.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_fresh_keeps_what_is_not_of_the_run(
    data: Path, tmp_path: Path, finished: TrainingRun
) -> None:
    run = train(data, tmp_path / "run")
    (run.path / "notes.txt").write_text("mine")
    train(data, run.path, fresh=True)
    assert (run.path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_was_killed_right_behind_its_end_is_tidied(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_run: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "tidy", killed)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()
    train(data, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / ".work" / "checkpoints").exists()


def test_a_gpu_without_room_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_worker: loop.Worker, _batch: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loop.Worker, "_step", full)
    with pytest.raises(StorageError, match="no memory for batches of 20 windows; lower batch_size"):
        train(data, tmp_path / "run")


@pytest.mark.slow
def test_two_at_a_time_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused: list[str] = []

    class Second(Told):
        def update(self, done: int, note: str = "") -> None:
            with pytest.raises(OutputError, match="is being written by another") as caught:
                train(data, out, resume=True)
            refused.append(str(caught.value))

    train(data, out, progress=Second())
    assert len(refused) == 3
    assert (out / "run.json").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainingRun
) -> None:
    publish, calls = store.publish, []

    def full(temporary: Path, final: Path) -> Any:
        calls.append(final)
        if final.suffix == ".pt" and sum(each.suffix == ".pt" for each in calls) == 2:
            raise OSError(28, "No space left on device")
        return publish(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(store, "publish", full)
        with pytest.raises(StorageError, match="No space left"):
            train(data, tmp_path / "run")
    run = train(data, tmp_path / "run", resume=True)
    assert weights_of(run.path) == weights_of(finished.path)


@pytest.mark.parametrize(
    ("lr", "epoch_samples", "valid"),
    [(1e30, 2000, 50), (1e30, 40, 50), (1e30, 40, 0), (1e39, 20, 0), (1e39, 20, 50)],
)
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, lr: float, epoch_samples: int, valid: int
) -> None:
    """This holds within an epoch, at its end, and at the last step; no such model is kept."""
    data = write_dataset(tmp_path / "data", train=2000, valid=valid)
    changes = {
        "architecture": "deepsea",
        "net": {"channels": [8], "dropouts": [0.2], "hidden": 6},
        "optimizer": {"name": "sgd", "lr": lr, "weight_decay": 1.0},
        "epoch_samples": epoch_samples,
        "epochs": 1,
        "loss": "sum",
    }
    with pytest.raises(DataError, match=r"(the loss is|a weight is not finite).*lower optimizer"):
        train(data, tmp_path / "run", changes=changes)
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "run.json").exists()


def refused(data: Path, out: Path, **changes: Any) -> str:
    with pytest.raises(RaygenomeError) as caught:
        train(data, out, changes=changes)
    assert not out.exists(), "nothing is made for what cannot be trained"
    message = str(caught.value)
    assert "\n" not in message
    return f"{type(caught.value).__name__}: {message}"


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_the_data_is_refused(data: Path, tmp_path: Path) -> None:
    out, net = tmp_path / "run", recipe()["net"]
    assert "DataError: the config has net.window 100, " in refused(
        data, out, net={**net, "window": 100}
    )
    assert "has 60; remove net.window from the config" in refused(
        data, out, net={**net, "window": 100}
    )
    assert "DataError: the config has net.targets 3, " in refused(
        data, out, net={**net, "targets": 3}
    )
    train(data, tmp_path / "fits", changes={"net": {**net, "targets": 2, "window": 60}})
    assert "DataError: an epoch has fewer samples than a batch of 300; lower batch_size" in refused(
        data, out, batch_size=300
    )
    assert "fewer samples than a batch of 20" in refused(data, out, epoch_samples=19)
    assert "UsageError: basset takes no 'layers'" in refused(data, out, net={"layers": 3})
    assert "UsageError: a window of 60 is too short" in refused(data, out, net={})
    assert "UsageError: no architecture is called 'enformer'" in refused(
        data, out, architecture="enformer"
    )
    assert "UsageError: batch_size is 1; basset has batch norm" in refused(data, out, batch_size=1)
    few = refused(data, out, min_positives=2000)
    assert "DataError: 2 of 2 targets have fewer than 2000 positive" in few
    assert "the first is motif0 with " in few


@pytest.mark.slow
def test_a_batch_of_both_strands_may_be_larger_than_the_split(data: Path, tmp_path: Path) -> None:
    changes = {"batch_size": 300, "strands": "both", "epochs": 1}
    assert train(data, tmp_path / "run", changes=changes).document["steps"] == 1


def test_data_that_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_packed(tmp_path / "empty", valid=planted(rng, 50))
    assert "has no training windows; build it with other splits" in refused(
        tmp_path / "empty", tmp_path / "run"
    )
    codes, labels = planted(rng, 50)
    labels[:, 1] = 0
    write_packed(tmp_path / "one", train=(codes, labels))
    one = refused(tmp_path / "one", tmp_path / "run")
    assert "1 of 2 targets have fewer than 1 positive training windows; the first is motif1" in one
    assert "NoInput" in refused(tmp_path / "nothing", tmp_path / "run")
    damaged = write_dataset(tmp_path / "damaged")
    rows = damaged / "train.rows"
    content = bytearray(rows.read_bytes())
    content[100] ^= 1
    rows.write_bytes(content)
    assert "DataError" in (message := refused(damaged, tmp_path / "run"))
    assert "train.rows is damaged" in message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"workers": -1}, "--workers is -1; it must be auto, 0"),
        ({"workers": "many"}, "--workers is many"),
        ({"workers": 100}, "--workers is 100; at most 20 workers can share a batch of 20"),
    ],
)
def test_options_that_cannot_be_are_refused(
    data: Path, tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        training.train(recipe(), data=data, out=tmp_path / "run", **{"workers": 0, **option})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.5])
def test_no_threads_are_refused(data: Path, tmp_path: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"--threads is {threads}; it must be a whole number"):
        train(data, tmp_path / "run", threads=threads)


@pytest.mark.slow
def test_threads_are_put_back(data: Path, tmp_path: Path, finished: TrainingRun) -> None:
    assert torch.get_num_threads() == 1
    train(data, tmp_path / "run", changes={"epochs": 1}, threads=2)
    assert torch.get_num_threads() == 1
    run = train(data, tmp_path / "one", threads=1)
    assert weights_of(run.path) == weights_of(finished.path)


def test_tf32_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tf32 exists only on CUDA"):
        train(data, tmp_path / "run", changes={"precision": "tf32"}, device="cpu")


@pytest.mark.parametrize(
    ("workers", "wanted"),
    [
        *((none, (0, 0)) for none in (None, "auto", 0, "0")),
        *((3, (3, 3)), ("2", (2, 2)), (20, (20, 20))),
        *(("1-4", (1, 4)), ("2-2", (2, 2))),
    ],
)
def test_workers_are_a_number_or_a_range(
    workers: int | str | None, wanted: tuple[int, int]
) -> None:
    assert wanted_workers(cpu(workers), make_config(recipe()), HERE) == wanted


@pytest.mark.parametrize("workers", ["0-2", "2-1", "1-", "-1", "-", "1.5", 1.5, True, "", "1-21"])
def test_no_other_workers_are_taken(workers: Any) -> None:
    with pytest.raises(UsageError, match="--workers is "):
        wanted_workers(cpu(workers), make_config(recipe()), HERE)


def test_auto_is_one_a_gpu_of_the_machines() -> None:
    def wanted(**machines: Any) -> tuple[int, int]:
        return wanted_workers(
            Compute(device="cuda"), make_config(recipe()), Machines(8, **machines)
        )

    assert wanted(gpus=1) == (0, 0)
    assert wanted(gpus=4) == (4, 4)
    assert wanted(gpus=1, cluster=True) == (1, 1)


def test_a_batch_has_no_more_workers_than_microbatches() -> None:
    large = make_config(recipe(batch_size=1000))
    assert wanted_workers(cpu(64), large, HERE) == (64, 64)
    with pytest.raises(UsageError, match="at most 64 workers can share a batch of 1000"):
        wanted_workers(cpu(65), large, HERE)


def test_a_recipe_that_is_not_there_is_no_input(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="cannot read the config"):
        training.train(tmp_path / "none.yaml", data=data, out=tmp_path / "run")


@pytest.mark.slow
def test_a_damaged_mark_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped_run(data, out, monkeypatch)
    (out / ".work" / "identity.json").write_text("{")
    with pytest.raises(DataError, match=r"identity.json is damaged .* start again with --fresh"):
        train(data, out, resume=True)
    train(data, out, fresh=True)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    import threading

    yield
    assert [each for each in threading.enumerate() if each.name == "loader"] == []
