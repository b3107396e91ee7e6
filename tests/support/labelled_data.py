"""A packed dataset of random windows and labels, for tests of evaluation."""

from pathlib import Path

import numpy as np

from raygenome.datasets.packed import pack_labels
from raygenome.datasets.writer import DatasetWriter, Windows
from raygenome.genome.targets import Target

ROWS, NEGATIVES, WINDOW = 90, 30, 40
TARGETS = [
    Target(0, "a", "c", "DNase", "", "DNase"),
    Target(1, "b", "c", "CTCF", "", "TF"),
    Target(2, "never", "c", "MAX", "", "TF"),
    Target(3, "rare", "c", "MYC", "", "TF"),
    Target(4, "odd", "", "", "", ""),
]


def labelled(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, labels and which rows are negatives; target 2 has no positives."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (ROWS, WINDOW)).astype(np.uint8)
    labels = (rng.random((ROWS, len(TARGETS))) < 0.4).astype(np.uint8)
    labels[:, 2:4] = 0
    labels[6, 3] = 1
    negative = np.arange(ROWS) % (ROWS // NEGATIVES) == 1
    labels[negative] = 0
    return codes, labels, negative


def write_dataset(
    path: Path, *, targets: list[Target] = TARGETS, windows: bool = True, negatives: bool = True
) -> Path:
    codes, labels, negative = labelled()
    places = Windows(["chr1"] * ROWS, np.arange(ROWS) * WINDOW, negative & negatives)
    with DatasetWriter(path, window_size=WINDOW, targets=targets, identity={}) as writer:
        writer.write(
            "test", 0, codes, pack_labels(labels[:, : len(targets)]), places if windows else None
        )
        writer.finish(recipe="test", sources=[], options={}, counts={})
    return path
