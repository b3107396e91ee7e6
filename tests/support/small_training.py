"""A dataset and a recipe that train in seconds: motifs planted on either strand are the labels."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raygenome.datasets.packed import Dataset, pack_labels
from raygenome.datasets.writer import DatasetWriter
from raygenome.genome.sequence import encode, reverse_complement
from raygenome.genome.targets import Target
from raygenome.training import run as training

WINDOW = 60
MOTIFS = ("GATTACAGG", "TGACTCATC")
TARGETS = [Target(i, f"motif{i}", "cell", "assay", "", "TF") for i in range(len(MOTIFS))]

#: A small Basset with batch norms and a dropout; it learns the motifs in a few epochs.
RECIPE: dict[str, Any] = {
    "architecture": "basset",
    "net": {"channels": [12], "kernels": [9], "pools": [13], "hidden": [16], "dropout": 0.2},
    "epochs": 3,
    "batch_size": 20,
    "seed": 5,
    "strands": "random",
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
}


def planted(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes uint8 (n, WINDOW) and labels (n, 2): whether each motif is in its half."""
    codes = rng.integers(0, 4, (n, WINDOW)).astype(np.uint8)
    labels = rng.integers(0, 2, (n, len(MOTIFS))).astype(np.uint8)
    half = WINDOW // len(MOTIFS)
    for row, target in np.argwhere(labels):
        motif = encode(MOTIFS[target])
        start = target * half + int(rng.integers(half - len(motif) + 1))
        site = motif if rng.random() < 0.5 else reverse_complement(motif)
        codes[row, start : start + len(motif)] = site
    some = rng.choice(n, n // 10, replace=False)
    codes[some, :3] = 4  # a few windows that begin with N
    return codes, labels


def write_packed(
    out: Path, *, targets: list[Target] = TARGETS, **splits: tuple[np.ndarray, np.ndarray]
) -> Dataset:
    """Write codes and labels as a packed dataset."""
    window = next(iter(splits.values()))[0].shape[1]
    with DatasetWriter(out, window_size=window, targets=targets, identity={}) as writer:
        for name, (codes, labels) in splits.items():
            if len(codes):
                writer.write(name, 0, codes, pack_labels(labels))
        return writer.finish(recipe="test", sources=[], options={}, counts={})


def write_dataset(
    out: Path, *, train: int = 200, valid: int = 100, test: int = 0, seed: int = 0
) -> Path:
    """Write a dataset with a number of windows per split; return its folder."""
    rng = np.random.default_rng(seed)
    sizes = {"train": train, "valid": valid, "test": test}
    write_packed(out, **{name: planted(rng, n) for name, n in sizes.items()})
    return out


def recipe(**changes: Any) -> dict[str, Any]:
    """Return the small recipe as plain values, with some fields changed; None removes a field."""
    values = {**copy.deepcopy(RECIPE), **changes}
    return {key: value for key, value in values.items() if value is not None}


def write_recipe(path: Path, **changes: Any) -> Path:
    """Write the small recipe as YAML."""
    path.write_text(yaml.safe_dump(recipe(**changes)))
    return path


def log_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log without the times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = ("seconds", "samples_per_s")
    return [{key: line[key] for key in line if key not in clock} for line in lines]


def weights_of(run: Path) -> bytes:
    """Return the weights of a run's model as bytes."""
    return (run / "model" / "weights.safetensors").read_bytes()


def train(data: Path, out: Path, *, changes: dict[str, Any] | None = None, **options: Any):
    return training.train(recipe(**(changes or {})), data=data, out=out, workers=0, **options)


class Told:
    """Records all calls that report the progress of a run."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "variants") -> None:
        self.calls.append(("begin", what, total, done, unit))

    def update(self, done: int, note: str = "") -> None:
        self.calls.append(("update", done, note))

    def end(self) -> None:
        self.calls.append(("end",))
