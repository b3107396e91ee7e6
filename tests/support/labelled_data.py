"""A packed dataset of random windows and labels, for tests of evaluation."""

from pathlib import Path

import numpy as np

from raygenome.datasets.writer import DatasetWriter, Sites
from raygenome.genome.targets import Target

ROWS, BACKGROUND, WINDOW = 90, 30, 40
TARGETS = [
    Target(0, "a", "c", "DNase", "", "DNase"),
    Target(1, "b", "c", "CTCF", "", "TF"),
    Target(2, "never", "c", "MAX", "", "TF"),
    Target(3, "rare", "c", "MYC", "", "TF"),
    Target(4, "odd", "", "", "", ""),
]


def labelled(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, labels and which rows are background; target 2 has no positives."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (ROWS, WINDOW)).astype(np.uint8)
    labels = (rng.random((ROWS, len(TARGETS))) < 0.4).astype(np.uint8)
    labels[:, 2:4] = 0
    labels[6, 3] = 1
    background = np.arange(ROWS) % (ROWS // BACKGROUND) == 1
    labels[background] = 0
    return codes, labels, background


def write_dataset(
    path: Path, *, targets: list[Target] = TARGETS, sites: bool = True, background: bool = True
) -> Path:
    codes, labels, is_background = labelled()
    places = Sites(["chr1"] * ROWS, np.arange(ROWS) * WINDOW, is_background & background)
    with DatasetWriter(path, window=WINDOW, targets=targets, identity={}) as writer:
        writer.write("test", 0, codes, labels[:, : len(targets)], places if sites else None)
        writer.finish(recipe="test", sources=[], options={}, counts={})
    return path
