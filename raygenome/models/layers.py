"""`LayeredNet`: a net that is a plain list of torch layers, which the incremental engine can read.

The layers run front to back: convolutions along the sequence, activations, pools, dropout. A fully
connected layer is a convolution as wide as what is left of the sequence. Its weights, (outputs,
channels, 1, length), lie in memory exactly as the published matrix (outputs, channels * length)
with its channel-major columns.

The sequence lies along the last axis of a 4-D tensor whose third axis is 1 and whose memory runs
channels-last, and activations work in place: on a CPU, in batches of 16, that is
faster than `Conv1d` for the same numbers (`jobs/bench speed` prints by how much).

Axes: N windows, L bases, H hidden units, T targets.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from raygenome.errors import UsageError
from raygenome.models.net import Net


class LayeredNet(Net):
    """A net that is its list of layers; the last one gives the logits.

    Args:
        config: see `Net`.
        layers: the layers by name, front to back; the last is a convolution with a bias.
    """

    def __init__(self, config: dict[str, Any], layers: dict[str, nn.Module]) -> None:
        super().__init__(config)
        self.layers = nn.Sequential()
        for name, layer in layers.items():
            self.layers.add_module(name, layer)
        self.lay_out()

    def lay_out(self) -> None:
        """Put the weights in memory channels-last, as their inputs are; loading may undo it."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def hidden(self, x_N4L: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer's values (N, H, 1, 1).

        A view of (N, window, 4) memory, such as `rows.transpose(1, 2)`, is taken without a copy.
        """
        x = x_N4L.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # (N, 4, 1, window)
        for layer in list(self.layers)[:-1]:
            x = layer(x)
        return x

    def output(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, T) of the last hidden layer's values (N, H, 1, 1)."""
        return self.layers[-1](hidden).flatten(1)

    @property
    def output_bias(self) -> nn.Parameter:
        """The last layer's bias, (T,)."""
        bias = self.layers[-1].bias
        assert isinstance(bias, nn.Parameter)  # for mypy
        return bias


def conv(inputs: int, outputs: int, width: int) -> nn.Conv2d:
    """Return an unpadded convolution along the sequence; as wide as its input, a full layer."""
    return nn.Conv2d(inputs, outputs, (1, width))


def pool(width: int) -> nn.MaxPool2d:
    """Return a max pool along the sequence that drops an incomplete pool at the end."""
    return nn.MaxPool2d((1, width))


def remaining_length(window: int, kernels: Sequence[int], pools: Sequence[int]) -> int:
    """Return the length of a window after unpadded convolutions, each followed by a pool.

    Raises:
        UsageError: nothing is left of the window.
    """
    length = window
    for kernel, width in zip(kernels, pools, strict=True):
        length = (length - kernel + 1) // width
        if length < 1:
            raise UsageError(
                f"a window of {window} is too short for convolutions of {list(kernels)} "
                f"and pools of {list(pools)}: nothing is left of it",
                "make it longer",
            )
    return length


def check_config(config: dict[str, Any], same_length: Sequence[str] = ()) -> None:
    """Refuse sizes that are not positive whole numbers, dropout outside [0, 1), uneven lists.

    Args:
        config: a net's keyword arguments; lists of numbers are checked one by one.
        same_length: the lists that must hold one number per convolution.

    Raises:
        UsageError: with the name of the argument, what it holds and what it needs.
    """
    for name, value in config.items():
        for number in value if isinstance(value, list) else [value]:
            if name.startswith("dropout"):
                if not isinstance(number, int | float) or not 0 <= number < 1:
                    raise UsageError(f"{name} is {value!r}; it must lie in [0, 1)")
            elif not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise UsageError(f"{name} is {value!r}; it must be whole numbers of at least 1")
    lengths = {name: len(config[name]) for name in same_length}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"lists of unequal length: {lengths}", "give one number per convolution")
