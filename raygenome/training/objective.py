"""What a step minimises: a net and its loss as one module, so that DDP sees one forward pass.

Axes: N samples of this worker's part of a batch, L bases, T targets.
"""

import inspect
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from raygenome.models.net import Net
from raygenome.training.config import Recipe

#: Torch's name for sending the first worker's buffers around at each step; ours are the same.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class Losses(NamedTuple):
    """What a forward pass gives.

    Attributes:
        objective: what is differentiated. Averaged over the workers it is the loss of the global
            batch and the penalties, for any split of the batch among them.
        cross_entropy: the sum over this worker's samples and all targets, detached.
    """

    objective: torch.Tensor
    cross_entropy: torch.Tensor


class Objective(nn.Module):
    """The loss of a recipe.

    Args:
        net: what is trained.
        recipe: which loss, penalty and precision.
        world: workers that share a batch.
    """

    def __init__(self, net: Net, recipe: Recipe, world: int) -> None:
        super().__init__()
        self.net = net
        self._recipe = recipe
        self._world = world

    def forward(self, x_NCL: torch.Tensor, labels_NT: torch.Tensor) -> Losses:
        """Return the losses of one-hot windows (N, 4, L) with labels (N, T), 0 or 1."""
        recipe = self._recipe
        bf16 = recipe.precision == "bf16"
        with torch.autocast(x_NCL.device.type, torch.bfloat16, enabled=bf16):
            hidden = self.net.hidden(x_NCL)
            logits = self.net.output(hidden)
            penalty = self._penalty(hidden)
        # The sigmoid is in the loss: exact where a probability would round to 0 or 1.
        entropy = functional.binary_cross_entropy_with_logits(
            logits.float(), labels_NT, reduction="sum"
        )
        scale = 1.0 if recipe.loss == "sum" else 1 / (recipe.batch_size * labels_NT.shape[1])
        return Losses((entropy * scale + penalty) * self._world, entropy.detach())

    def _penalty(self, hidden: torch.Tensor) -> torch.Tensor | float:
        l1 = self._recipe.l1
        if l1 is None:
            return 0.0
        if l1.on == "hidden":
            return l1.weight * hidden.float().abs().sum()
        # The last layer again, on an input that no gradient passes through.
        return l1.weight * self.net.output(hidden.detach()).float().abs().sum()


def shared(objective: Objective, device: str) -> nn.Module:
    """Return the objective with its gradients averaged over all workers, on "cpu" or "cuda"."""
    return DistributedDataParallel(
        objective,
        gradient_as_bucket_view=True,
        # Otherwise buckets are laid out anew after the first step, and so after a resume: sums over
        # three workers or more would be taken in another order.
        find_unused_parameters=device == "cpu",
        **{_SYNC_BUFFERS: False},  # type: ignore[arg-type]
    )


def set_prior(net: Net, positives: np.ndarray, rows: int) -> None:
    """Set the last layer's bias to the log odds of each target's share of positive windows.

    Args:
        net: with T outputs.
        positives: windows by target, (T,).
        rows: windows in all; half a window is added to either side, so that no odds are infinite.
    """
    odds = (positives + 0.5) / (rows - positives + 0.5)
    with torch.no_grad():
        net.output_bias.copy_(torch.from_numpy(np.log(odds)))


def clip_norms(net: Net, limit: float) -> None:
    """Scale the weights of each output unit down to an L2 norm of at most `limit`, biases not.

    As Torch7's `weight:renorm(2, 1, limit)` on each convolution and linear layer.
    """
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
                layer.weight.renorm_(2, 0, limit)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe, at its full learning rate."""
    said = recipe.optimizer
    parameters = list(net.parameters())
    if said.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=said.lr,
            momentum=said.momentum,
            dampening=said.dampening,
            weight_decay=said.weight_decay,
            fused=True,
        )
    if said.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=said.lr, alpha=said.alpha, eps=said.eps, weight_decay=said.weight_decay
        )
    return torch.optim.AdamW(
        parameters,
        lr=said.lr,
        betas=said.betas,
        eps=said.eps,
        weight_decay=said.weight_decay,
        fused=True,
    )


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of step `step`, from 0, of `steps` in all."""
    schedule = recipe.schedule
    rising = schedule.warmup * steps
    if step < rising:
        return recipe.optimizer.lr * (step + 1) / (rising + 1)
    if schedule.name == "inverse":
        return recipe.optimizer.lr / (1 + schedule.decay * step)
    if schedule.name == "cosine":
        share = (step - rising) / max(steps - rising, 1)
        low = schedule.final
        return recipe.optimizer.lr * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)
    return recipe.optimizer.lr
