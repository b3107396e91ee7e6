"""The loss and the update of a step: objective, optimizer, learning rate, norms, moving average.

The net and its loss are one module, so that DDP sees one forward pass.

Axes: N samples of this worker's share of a batch, L bases, T targets.
"""

import copy
import inspect
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from raygenome.models.net import Net
from raygenome.training.config import TrainConfig

#: Torch's option to send the first worker's buffers to all at each step; ours are equal anyway.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class Losses(NamedTuple):
    """The result of a forward pass.

    Attributes:
        objective: the value to differentiate. Its mean over the workers is the loss of the global
            batch plus the penalties, however the batch is shared.
        cross_entropy: the sum over this worker's samples and all targets, detached.
    """

    objective: torch.Tensor
    cross_entropy: torch.Tensor


class Objective(nn.Module):
    """The loss that a configuration asks for.

    Args:
        net: the net to train.
        config: loss, penalty and precision.
        world: number of workers that share a batch.
    """

    def __init__(self, net: Net, config: TrainConfig, world: int) -> None:
        super().__init__()
        self.net = net
        self._config = config
        self._world = world

    def forward(self, x_NCL: torch.Tensor, labels_NT: torch.Tensor) -> Losses:
        """Return the losses of one-hot windows (N, 4, L) with labels (N, T), 0 or 1."""
        config = self._config
        bf16 = config.precision == "bf16"
        with torch.autocast(x_NCL.device.type, torch.bfloat16, enabled=bf16):
            hidden = self.net.hidden(x_NCL)
            logits = self.net.output(hidden)
            penalty = self._penalty(hidden)
        # The loss includes the sigmoid: exact where a probability would round to 0 or 1.
        entropy = functional.binary_cross_entropy_with_logits(
            logits.float(), labels_NT, reduction="sum"
        )
        scale = 1.0 if config.loss == "sum" else 1 / (config.batch_size * labels_NT.shape[1])
        return Losses((entropy * scale + penalty) * self._world, entropy.detach())

    def _penalty(self, hidden: torch.Tensor) -> torch.Tensor | float:
        l1 = self._config.l1
        if l1 is None:
            return 0.0
        if l1.on == "hidden":
            return l1.weight * hidden.float().abs().sum()
        # The last layer again, on a detached input.
        return l1.weight * self.net.output(hidden.detach()).float().abs().sum()


def shared(objective: Objective, device: str) -> nn.Module:
    """Return the objective with gradients averaged over all workers, on "cpu" or "cuda"."""
    return DistributedDataParallel(
        objective,
        gradient_as_bucket_view=True,
        # Otherwise DDP rearranges its buckets after the first step, and again after a resume, which
        # changes the order of sums over three or more workers.
        find_unused_parameters=device == "cpu",
        **{_SYNC_BUFFERS: False},  # type: ignore[arg-type]
    )


def set_prior(net: Net, positives: np.ndarray, n_rows: int) -> None:
    """Set the last layer's bias to the log odds of each target's fraction of positive windows.

    Args:
        net: with T outputs.
        positives: number of positive windows per target, (T,).
        n_rows: number of all windows; half a window is added to both counts, so that no odds are
            infinite.
    """
    odds = (positives + 0.5) / (n_rows - positives + 0.5)
    with torch.no_grad():
        net.output_bias.copy_(torch.from_numpy(np.log(odds)))


def clip_norms(net: Net, limit: float) -> None:
    """Scale the weights of each output unit down to an L2 norm of at most `limit`; biases stay.

    This is Torch7's `weight:renorm(2, 1, limit)` on each convolution and linear layer.
    """
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
                layer.weight.renorm_(2, 0, limit)


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a configuration, at its full learning rate."""
    chosen = config.optimizer
    parameters = list(net.parameters())
    if chosen.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=chosen.lr,
            momentum=chosen.momentum,
            dampening=chosen.dampening,
            weight_decay=chosen.weight_decay,
            fused=True,
        )
    if chosen.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters,
            lr=chosen.lr,
            alpha=chosen.alpha,
            eps=chosen.eps,
            weight_decay=chosen.weight_decay,
        )
    return torch.optim.AdamW(
        parameters,
        lr=chosen.lr,
        betas=chosen.betas,
        eps=chosen.eps,
        weight_decay=chosen.weight_decay,
        fused=True,
    )


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of step `step`, from 0, of `steps` in total."""
    schedule = config.schedule
    rising = schedule.warmup * steps
    if step < rising:
        return config.optimizer.lr * (step + 1) / (rising + 1)
    if schedule.name == "inverse":
        return config.optimizer.lr / (1 + schedule.decay * step)
    if schedule.name == "cosine":
        share = (step - rising) / max(steps - rising, 1)
        low = schedule.final
        return config.optimizer.lr * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)
    return config.optimizer.lr


class MovingAverage:
    """An exponential moving average (EMA) of a net's weights, as a second net.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the initial weights are soon
    forgotten. Averages over steps are steadier than the last weights (Polyak and Juditsky, 1992).

    Args:
        net: the net to train, before its first step.
        decay: the fraction of the average that each step keeps, in the long run; None follows `net`
            exactly, without a second net.

    Attributes:
        net: the net to validate and keep.
    """

    def __init__(self, net: Net, decay: float | None) -> None:
        self._decay = decay
        self.net = net
        if decay is not None:
            self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: Net, step: int) -> None:
        """Move the average towards the weights of `net` after `step` steps."""
        if self._decay is None:
            return
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        mine, theirs = self.net.state_dict(), net.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [mine[name] for name in floating], [theirs[name] for name in floating], weight
        )
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])

    def state(self) -> dict[str, Any] | None:
        """Return its state for a checkpoint; None where there is no second net."""
        return None if self._decay is None else self.net.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue from the state in a checkpoint."""
        if state is not None:
            self.net.load_state_dict(state)
