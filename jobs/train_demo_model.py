"""Train the small model that `raygenome demo` scores with, and write it into the package.

    python jobs/train_demo_model.py

A Basset of small size, on windows that `raygenome.demo.synthetic` makes: about two minutes on
two CPU cores, and the same weights each time on the same machine and torch. It prints the loss
as it goes and, for each motif, the AUROC on windows of another seed.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raygenome.demo.planted_motifs import MOTIFS
from raygenome.demo.synthetic import training_windows
from raygenome.genome.sequence import one_hot_table, reverse_complement
from raygenome.models.basset import Basset
from raygenome.registry import registry
from raygenome.registry.targets import Target

DESTINATION = Path(__file__).parents[1] / "raygenome/registry/bundled/demo"

TRAIN_SEED, TEST_SEED, TORCH_SEED = 1, 2, 3
WINDOW = 200
TRAIN_WINDOWS, TEST_WINDOWS = 100_000, 6_000
EPOCHS, BATCH, PEAK_RATE = 10, 128, 4e-3
CONFIG: dict[str, Any] = {
    "window": WINDOW,
    "targets": len(MOTIFS),
    "channels": [48, 32, 32],
    "kernels": [21, 7, 3],
    "pools": [3, 3, 4],  # 200 -> 180 -> 60 -> 54 -> 18 -> 16 -> 4: each pool comes out even
    "hidden": [64],
    "dropout": 0.1,
}


def one_hot(codes: np.ndarray) -> torch.Tensor:
    """Return codes (windows, bases) as the input of the net, float32 (windows, 4, bases)."""
    table = one_hot_table(Basset.DEFAULT_CHANNEL_ORDER, Basset.DEFAULT_N_VALUE)
    return torch.from_numpy(table[codes]).transpose(1, 2)


def train(net: nn.Module, codes: np.ndarray, labels: np.ndarray) -> None:
    """Train `net` in place; in each batch every other window is taken from the other strand."""
    rng = np.random.default_rng(TORCH_SEED)
    steps = EPOCHS * (len(codes) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    criterion = nn.BCEWithLogitsLoss()
    net.train()
    for epoch in range(EPOCHS):
        losses = []
        for rows in rng.permutation(len(codes))[: len(codes) // BATCH * BATCH].reshape(-1, BATCH):
            batch = codes[rows]
            batch[::2] = reverse_complement(batch[::2])
            loss = criterion(net(one_hot(batch)), torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1} of {EPOCHS}: mean loss {np.mean(losses):.4f}")


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve by the rank-sum formula, for scores without ties."""
    rank = np.empty(len(score))
    rank[np.argsort(score)] = np.arange(1, len(score) + 1)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    return float((rank[truth > 0].sum() - positives * (positives + 1) / 2) / positives / negatives)


def report(net: nn.Module) -> None:
    """Print the AUROC of each motif on windows that the net has not seen."""
    codes, labels = training_windows(TEST_SEED, TEST_WINDOWS, WINDOW)
    net.eval()
    with torch.inference_mode():
        logits = net(one_hot(codes)).numpy()
    for index, motif in enumerate(MOTIFS):
        print(f"{motif.name:<12} AUROC {auroc(labels[:, index], logits[:, index]):.4f}")


def main() -> None:
    """Make the windows, train, report, save the model directory."""
    started = time.perf_counter()
    torch.manual_seed(TORCH_SEED)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    net = Basset(**CONFIG)
    train(net, *training_windows(TRAIN_SEED, TRAIN_WINDOWS, WINDOW))
    report(net)
    targets = [
        Target(index, motif.name, "synthetic", motif.name, "", "TF")
        for index, motif in enumerate(MOTIFS)
    ]
    spec = registry.save_model(
        DESTINATION,
        net,
        name="demo",
        targets=targets,
        source="jobs/train_demo_model.py",
        licence="MIT",
        overwrite=True,
    )
    parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"{parameters:,} parameters, {time.perf_counter() - started:.0f} s, to {DESTINATION}")
    print(f"weights sha256 {spec.weights_sha256}")


if __name__ == "__main__":
    main()
