"""Validation loss, AUROC and AUPRC of a net, computed by all workers together.

Axes: N windows, T targets.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from raygenome.datasets.packed import Split
from raygenome.evaluation.metrics import auroc_auprc
from raygenome.evaluation.metrics import mean as mean_defined
from raygenome.evaluation.predict import predict
from raygenome.models.net import Net


class Scores(NamedTuple):
    """Loss, AUROC and AUPRC; means over the targets for which they are defined, nan if none is."""

    loss: float
    auroc: float
    auprc: float


def validate(
    net: Net, split: Split, *, rank: int, world: int, device: torch.device, precision: str
) -> Scores:
    """Return the scores of a net on a split, both strands averaged, as `evaluate` does.

    The precision is that of training: scores in bf16 differ slightly from those of `evaluate` in
    fp32. Each worker takes a share of the rows; all must call this at the same time, and all get
    the same result.
    """
    found = torch.zeros(3, dtype=torch.float64, device=device)
    rows = np.array_split(np.arange(split.n_rows), world)
    net.eval()
    scores = predict(net, net.ENCODING, split, rows[rank], device=device, precision=precision)
    if world > 1:
        scores = _gathered(scores, [len(part) for part in rows], device)
    if rank == 0:
        found += torch.from_numpy(np.array(score(split.labels(slice(None)), scores)))
    if world > 1:
        dist.broadcast(found, 0)
    return Scores(*found.tolist())


def score(labels_NT: np.ndarray, scores_NT: np.ndarray) -> Scores:
    """Return the scores of probabilities; all are nan if any probability is."""
    if not np.isfinite(scores_NT).all():
        return Scores(math.nan, math.nan, math.nan)
    total = 0.0
    for labels, p in zip(labels_NT.T, scores_NT.T, strict=True):
        likely = np.clip(np.where(labels, p, 1 - p.astype(np.float64)), 1e-7, 1)
        total -= float(np.log(likely).mean())
    auroc, auprc = auroc_auprc(labels_NT, scores_NT)
    return Scores(total / labels_NT.shape[1], mean_defined(auroc), mean_defined(auprc))


def _gathered(scores_NT: np.ndarray, counts: list[int], device: torch.device) -> np.ndarray:
    """Return the probabilities of all rows, in the order of the workers."""
    mine = torch.zeros(max(counts), scores_NT.shape[1], device=device)
    mine[: len(scores_NT)] = torch.from_numpy(np.ascontiguousarray(scores_NT))
    everyone = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(everyone, mine)
    parts = [part[:n].cpu().numpy() for part, n in zip(everyone, counts, strict=True)]
    return np.concatenate(parts)
