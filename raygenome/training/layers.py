"""Dropout and batch normalisation that do not depend on the number of workers.

Dropout draws one mask per micro-batch (see `order`), and batch normalisation takes its statistics
over all workers. Both replace torch's layers during training and have the same weights, so that a
net trained with them is saved and scored like any other net.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from raygenome.models.net import Net
from raygenome.training.order import MicroBatches, dropout_seeds


class MicroBatchDropout(nn.Module):
    """Dropout whose mask depends on seed, step, layer and micro-batch alone.

    Args:
        p: the fraction of values that are set to 0; the others are scaled by 1 / (1 - p).
        layer: a number that is unique within the net.
    """

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        self.p = p
        self._layer = layer
        self._seeds: list[int] = []
        self._mine = MicroBatches((0,), 0)
        self._generator: torch.Generator | None = None

    def begin_step(self, seed: int, step: int, mine: MicroBatches) -> None:
        """Set the seeds of the masks for the next forward pass, and this worker's micro-batches."""
        self._seeds = dropout_seeds(seed, step, self._layer)
        self._mine = mine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, (samples of this worker, ...), with some values set to 0."""
        if not self.training or self.p == 0:
            return x
        if self._generator is None:
            self._generator = torch.Generator(x.device)
        mask = torch.empty_like(x)
        edges = self._mine.edges
        for number, (begin, end) in enumerate(pairwise(edges)):
            self._generator.manual_seed(self._seeds[self._mine.first + number])
            mask[begin - edges[0] : end - edges[0]].bernoulli_(
                1 - self.p, generator=self._generator
            )
        return x * mask.div_(1 - self.p)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the samples of all workers; torch's own does that only on GPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, (N, C, 1, L), normalised; all workers must call it at the same time."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _SharedNorm.apply(x, self.weight, self.bias, self.eps)
        assert self.running_mean is not None  # for mypy: these layers track their statistics
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        return y


class _SharedNorm(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, statistics over all workers.

    Torch's own kernels do the passes over the values, in the precision of `x`, with given
    statistics, and compute in float32. Backward, with g = dy * weight / sigma and
    h = (x - mean) / sigma: dx = g - mean(g) - h * mean(g * h), both means over all workers' samples
    (Ioffe and Szegedy, 2015).
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        # On a CPU many times faster than torch.var_mean for channels-last values. The dummy running
        # statistics are float32, so that those of bfloat16 values are as well.
        unused = torch.zeros_like(weight)
        here = torch.batch_norm_update_stats(x, unused, unused.clone(), 0.0)
        mean, variance, total = _pooled(*here, x.numel() // x.shape[1])
        y = nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, variance, total = ctx.saved_tensors
        dy = grads[0].contiguous(memory_format=torch.channels_last)
        g, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([d_weight, d_bias])
        dist.all_reduce(sums)
        sums = sums * weight * torch.rsqrt(variance + ctx.eps) / total
        g -= nn.functional.batch_norm(x, mean, variance, sums[0], sums[1], False, 0.0, ctx.eps)
        return g, d_weight, d_bias, None


def _pooled(
    mean: torch.Tensor, variance: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, variance and count over all workers, from each worker's own (C,).

    By Chan et al.: sums of squares about each worker's own mean avoid cancellation.
    """
    here = torch.cat([mean, variance, mean.new_tensor([count])])
    everyone = here.new_empty(dist.get_world_size(), len(here))
    dist.all_gather(list(everyone), here)
    means, variances = everyone[:, :-1].chunk(2, dim=1)
    counts = everyone[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(dim=0) / total
    squares = ((variances + (means - mean) ** 2) * counts).sum(dim=0)
    return mean, squares / total, total


def prepare(net: Net, *, world: int) -> None:
    """Replace torch's layers in `net` by those of this module, with the same weights."""
    number = 0
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                parent.add_module(name, MicroBatchDropout(layer.p, number))
                number += 1
            elif isinstance(layer, nn.BatchNorm2d) and world > 1:
                shared = SharedBatchNorm(layer.num_features, eps=layer.eps, momentum=layer.momentum)
                shared.load_state_dict(layer.state_dict())
                parent.add_module(name, shared)


def begin_step(net: Net, seed: int, step: int, mine: MicroBatches) -> None:
    """Set the seeds of all dropout layers for one step."""
    for layer in net.modules():
        if isinstance(layer, MicroBatchDropout):
            layer.begin_step(seed, step, mine)
