"""Train the small model of `raygenome demo`, and write it into the package.

    python jobs/experiments/train_demo_model.py

It packs windows from `raygenome.demo.synthetic`, trains on them with `configs/demo.yaml`, and
prints the AUROC of each motif on windows of another seed. It takes minutes on two CPU cores, and
gives the same weights each time with the same machine, torch and number of threads.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from raygenome.datasets import writer
from raygenome.datasets.packed import pack_labels
from raygenome.datasets.writer import DatasetWriter
from raygenome.demo.planted_motifs import MOTIFS
from raygenome.demo.synthetic import training_windows
from raygenome.evaluation.evaluate import evaluate
from raygenome.genome.targets import Target
from raygenome.progress.bars import LineProgress
from raygenome.registry.model import Model
from raygenome.registry.saving import save_model
from raygenome.training.run import train

ROOT = Path(__file__).parents[2]
DESTINATION = ROOT / "raygenome/registry/bundled/demo"
CONFIG = ROOT / "configs/demo.yaml"

WINDOW = 200
#: Windows and seed of each split.
SPLITS = {"train": (100_000, 1), "valid": (6_000, 4), "test": (6_000, 2)}
THREADS = 2


def make_dataset(folder: Path) -> None:
    """Pack synthetic windows of three seeds, one per split."""
    targets = [
        Target(index, motif.name, "synthetic", motif.name, "", "TF")
        for index, motif in enumerate(MOTIFS)
    ]
    with DatasetWriter(folder, window_size=WINDOW, targets=targets, identity={}) as out:
        for split, (windows, seed) in SPLITS.items():
            codes, labels = training_windows(seed, windows, WINDOW)
            parts = np.arange(writer.PART_ROWS, windows, writer.PART_ROWS)
            pairs = zip(np.split(codes, parts), np.split(labels, parts), strict=True)
            for part, (some_codes, some_labels) in enumerate(pairs):
                out.write(split, part, some_codes, pack_labels(some_labels.astype(np.uint8)))
        seeds = {split: seed for split, (_, seed) in SPLITS.items()}
        out.finish(recipe="synthetic", sources=[], options={"seeds": seeds}, counts={})


def main() -> None:
    """Make the windows, train, evaluate, and copy the model into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--destination", type=Path, default=DESTINATION)
    destination = parser.parse_args().destination
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    torch.set_num_threads(THREADS)
    work = Path(tempfile.mkdtemp(prefix="raygenome-demo-"))
    try:
        make_dataset(work / "data")
        run = train(
            CONFIG,
            data=work / "data",
            out=work / "demo",
            workers=0,
            device="cpu",
            progress=LineProgress(sys.stdout),
        )
        for line in run.log:
            loss, valid = line["train_loss"], line["valid_loss"]
            print(f"epoch {line['epoch']}: train loss {loss:.4f}, valid loss {valid:.4f}")
        found = evaluate(model=run.model, data=work / "data", split="test")
        for row in found.table.to_pylist():
            print(f"{row['name']:<12} AUROC {row['auroc']:.4f}  AUPRC {row['auprc']:.4f}")
        trained = Model.open(run.model)
        saved = save_model(
            destination,
            trained.net(),
            name="demo",
            targets=trained.targets,
            source="configs/demo.yaml",
            licence="MIT",
            training=trained.spec.training,
            overwrite=True,
        )
    finally:
        shutil.rmtree(work)
    parameters = sum(parameter.numel() for parameter in trained.net().parameters())
    print(f"{parameters:,} parameters, {time.perf_counter() - started:.0f} s, to {destination}")
    print(f"weights sha256 {saved.weights_sha256}")


if __name__ == "__main__":
    main()
