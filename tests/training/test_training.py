"""Training in this process: the files of a run, and that the net learns."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import load_model
from support.small_training import (
    MOTIFS,
    TARGETS,
    WINDOW,
    Told,
    log_of,
    planted,
    recipe,
    train,
    weights_of,
    write_dataset,
    write_packed,
    write_recipe,
)

from raygenome.datasets.packed import Dataset
from raygenome.evaluation.metrics import auroc_auprc
from raygenome.evaluation.predict import predict
from raygenome.registry.model import Model
from raygenome.training import loop
from raygenome.training import run as training
from raygenome.training.config import make_config
from raygenome.training.run import TrainingRun

pytestmark = pytest.mark.usefixtures("one_thread")

#: The keys of a line of the log.
LINE = {
    "epoch",
    "step",
    "samples",
    "seconds",
    "train_loss",
    "valid_loss",
    "valid_auroc",
    "valid_auprc",
    "lr",
    "samples_per_s",
    "best",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """Return a run that nobody changes."""
    torch.set_num_threads(1)
    return train(data, tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.slow
def test_a_run_leaves_its_files_and_no_others(finished: TrainingRun, data: Path) -> None:
    there = {path.name for path in finished.path.iterdir()}
    assert there == {"run.json", "log.jsonl", "curves.png", "progress.json", "model", ".work"}
    assert {path.name for path in finished.model.iterdir()} == {
        "model.json",
        "weights.safetensors",
        "targets.tsv",
    }
    assert {path.name for path in (finished.path / ".work").iterdir()} <= {
        "identity.json",
        "kind",
        "lock",
    }
    assert (finished.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((finished.path / "run.json").read_text())
    assert document == finished.document
    assert (document["steps"], document["epochs"], document["samples"]) == (30, 3, 600)
    assert document["seconds"] > 0
    assert document["config"] == make_config(recipe()).plain()
    assert document["data_digest"] == Dataset.open(data).digest


def test_the_log_has_a_line_an_epoch(finished: TrainingRun) -> None:
    text = (finished.path / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines == finished.log
    assert [set(line) for line in lines] == [LINE] * 3
    assert [(line["epoch"], line["step"], line["samples"]) for line in lines] == [
        (1, 10, 200),
        (2, 20, 400),
        (3, 30, 600),
    ]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert all(line["samples_per_s"] > 0 and line["lr"] == 0.05 for line in lines)
    assert all(0 < line["valid_loss"] < 2 and 0 < line["valid_auroc"] < 1 for line in lines)


def test_the_model_says_where_it_comes_from_and_scores_as_the_log_says(
    finished: TrainingRun, data: Path
) -> None:
    net, spec = load_model(finished.model)
    dataset = Dataset.open(data)
    best = finished.document["best"]
    assert (spec.architecture, spec.window, spec.targets) == ("basset", WINDOW, len(MOTIFS))
    assert Model.open(finished.model).targets == TARGETS
    assert spec.training is not None
    assert spec.training["recipe"] == make_config(recipe()).plain()
    assert spec.training["data_digest"] == dataset.digest
    assert spec.training["epoch"] == best["epoch"]
    assert spec.training["scores"] == {key: best[key] for key in best if key != "epoch"}
    valid = dataset.split("valid")
    scores = predict(net, spec, valid)
    labels = valid.labels(slice(None))
    auroc, auprc = auroc_auprc(labels, scores)
    p = scores.astype(float)
    loss = -np.where(labels == 1, np.log(p), np.log(1 - p)).mean()
    assert best["valid_auroc"] == pytest.approx(auroc.mean(), rel=1e-6)
    assert best["valid_auprc"] == pytest.approx(auprc.mean(), rel=1e-6)
    assert best["valid_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_train_loss_is_the_mean_over_the_epoch(data: Path, tmp_path: Path) -> None:
    """With a learning rate near 0 and no dropout the net does not change, so it gives the loss."""
    changes = {
        "net": {**recipe()["net"], "dropout": 0.0},
        "optimizer": {"name": "sgd", "lr": 1e-12},
        "strands": "forward",
        "batch_size": 200,
        "epochs": 1,
    }
    run = train(data, tmp_path / "run", changes=changes)
    net, spec = load_model(run.model)
    net.train()
    split = Dataset.open(data).split("train")
    labels = split.labels(slice(None))
    with torch.no_grad():
        p = predict_in_training_mode(net, spec, split)
    loss = -np.where(labels == 1, np.log(p), np.log(1 - p)).mean()
    assert run.log[0]["train_loss"] == pytest.approx(loss, rel=1e-5)


def predict_in_training_mode(net: Any, spec: Any, split: Any) -> np.ndarray:
    codes = split.codes(slice(None))
    one_hot = (codes[:, None, :] == np.arange(4)[:, None]).astype(np.float32)
    one_hot += spec.n_value * (codes == 4)[:, None, :]
    return torch.sigmoid(net(torch.from_numpy(one_hot.astype(np.float32)))).double().numpy()


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", train=1200, valid=300, seed=3)
    changes = {
        "epochs": 12,
        "batch_size": 32,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.1},
    }
    run = train(data, tmp_path / "run", changes=changes)
    assert run.document["best"]["valid_auroc"] > 0.95
    assert run.log[0]["train_loss"] > 1.5 * run.log[-1]["train_loss"]


@pytest.mark.slow
def test_runs_of_one_seed_are_the_same_bit_for_bit(
    finished: TrainingRun, data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(999)  # nobody else's random numbers matter
    again = train(data, tmp_path / "again")
    assert weights_of(again.path) == weights_of(finished.path)
    assert log_of(again.path) == log_of(finished.path)
    other = train(data, tmp_path / "other", changes={"seed": 6})
    assert weights_of(other.path) != weights_of(finished.path)


def test_training_leaves_the_random_numbers_of_others_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(data, tmp_path / "run", changes={"epochs": 1})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_every_kind_of_recipe_trains(data: Path, tmp_path: Path) -> None:
    deepsea = {"channels": [8], "dropouts": [0.2], "hidden": 6}
    kinds: list[dict[str, Any]] = [
        {"architecture": "deepsea", "net": deepsea, "strands": "both", "max_norm": 0.9},
        {"architecture": "deepsea", "net": deepsea, "l1": {"weight": 1e-8, "on": "hidden"}},
        {"loss": "sum", "optimizer": {"name": "rmsprop", "lr": 0.002}, "strands": "alternate"},
        {"optimizer": {"name": "adamw", "lr": 0.01}, "precision": "bf16", "shift": 3},
        {"batch_size": 7, "epoch_samples": 50, "strands": "both", "shift": 1},
    ]
    for number, changes in enumerate(kinds):
        run = train(data, tmp_path / f"{number}", changes={**changes, "epochs": 2})
        assert math.isfinite(run.log[-1]["valid_loss"])
        load_model(run.model)


@pytest.mark.slow
def test_progress_is_told_in_samples(data: Path, tmp_path: Path) -> None:
    progress = Told()
    train(data, tmp_path / "run", progress=progress)
    assert progress.calls[0] == ("begin", "training", 600, 0, "samples")
    assert progress.calls[-1] == ("end",)
    updates = progress.calls[1:-1]
    assert [call[1] for call in updates] == [200, 400, 600]
    assert all("epoch" in call[2] and "loss" in call[2] for call in updates)


@pytest.mark.slow
def test_a_yaml_file_and_its_values_make_the_same_run(
    finished: TrainingRun, data: Path, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yaml")
    run = training.train(path, data=data, out=tmp_path / "run", workers=0)
    assert run.document["config"] == finished.document["config"]
    assert weights_of(run.path) == weights_of(finished.path)


def scored(monkeypatch: pytest.MonkeyPatch, *values: float | None, by: str = "loss") -> None:
    """Replace the validation scores of the epochs by given ones."""
    left = iter(values)

    def validated(worker: loop.Worker) -> dict[str, float | None]:
        found: dict[str, float | None] = dict.fromkeys(
            ("valid_loss", "valid_auroc", "valid_auprc"), 0.5
        )
        return {**found, f"valid_{by}": next(left)}

    monkeypatch.setattr(loop.Worker, "_validated", validated)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["loss", "auroc", "auprc"])
def test_the_best_epoch_is_kept_and_patience_ends_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    sign = -1 if by == "loss" else 1
    values = [sign * value for value in (0.5, 0.7, 0.7, 0.6, 0.65, 0.9, 0.9)]
    scored(monkeypatch, *values, by=by)
    exported: dict[int, bytes] = {}
    save = loop.Worker._save

    def noted(worker: loop.Worker) -> None:
        exported[worker.state.epoch] = b"".join(
            value.numpy().tobytes() for value in worker.net.state_dict().values()
        )
        save(worker)

    monkeypatch.setattr(loop.Worker, "_save", noted)
    changes = {"epochs": 20, "select": {"by": by, "patience": 3}}
    run = train(data, tmp_path / "run", changes=changes)
    assert [line["best"] for line in run.log] == [True, True, False, False, False]
    assert run.document["epochs"] == 5
    assert run.document["best"]["epoch"] == 2
    net, spec = load_model(run.model)
    assert spec.training is not None
    assert spec.training["epoch"] == 2
    kept = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    assert kept == exported[2] != exported[5]


@pytest.mark.slow
def test_a_run_that_was_stopped_by_its_patience_does_not_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, 0.5, 0.6, 0.7)
    changes = {"epochs": 20, "select": {"patience": 2}}

    def crash(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_finish", crash)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", changes=changes)
    run = train(data, tmp_path / "run", changes=changes, resume=True)
    assert run.document["epochs"] == 3


@pytest.mark.slow
def test_without_a_valid_split_the_last_epoch_is_kept(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", valid=0)
    run = train(data, tmp_path / "run", changes={"select": {"patience": 1}})
    assert [line["best"] for line in run.log] == [True] * 3
    assert all(line["valid_loss"] is None and line["valid_auroc"] is None for line in run.log)
    assert run.document["best"]["epoch"] == 3
    load_model(run.model)


@pytest.mark.slow
def test_a_valid_split_in_which_a_target_has_no_positives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes, labels = planted(rng, 60)
    labels[:, 1] = 0
    data = tmp_path / "data"
    write_packed(data, train=planted(rng, 100), valid=(codes, labels))
    first = train(data, tmp_path / "run", changes={"epochs": 1}).log[0]
    assert 0 < first["valid_auroc"] < 1, "the mean of the target that has one"
    write_packed(tmp_path / "none", train=planted(rng, 100), valid=(codes, 0 * labels))
    run = train(tmp_path / "none", tmp_path / "run2", changes={"select": {"by": "auroc"}})
    assert [line["valid_auroc"] for line in run.log] == [None] * 3
    assert run.document["best"]["epoch"] == 3


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    import threading

    yield
    assert [each for each in threading.enumerate() if each.name == "loader"] == []
