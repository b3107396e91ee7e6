"""The interface of a net: training, engines and registry use only this class.

A net maps one-hot windows to logits in two steps, so that training can penalise the last hidden
layer:

    x (N, 4, window) ──hidden──► last hidden layer ──output──► logits (N, T); their sigmoid scores

Axes: N windows, L bases of a window, T targets.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn


class Encoding(NamedTuple):
    """How a net wants its input.

    Attributes:
        channels: the order of the four input channels, such as "AGCT".
        n_value: the value of all four channels for an N.
    """

    channels: str
    n_value: float


class Net(nn.Module, abc.ABC):
    """A net; a subclass takes its sizes as keyword arguments that each have a default.

    Args:
        config: the keyword arguments that make this net again, plain JSON values; `window` (bases)
            and `targets` (outputs) among them.

    Attributes:
        ENCODING: that of the published weights, and of a net that is trained here.
    """

    ENCODING: ClassVar[Encoding] = Encoding("ACGT", n_value=0.25)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def hidden(self, x_N4L: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer's values, (N, ...), of one-hot windows (N, 4, window)."""

    @abc.abstractmethod
    def output(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, T) of the output of `hidden`."""

    @property
    @abc.abstractmethod
    def output_bias(self) -> nn.Parameter:
        """What is added to the logits last, (T,); training may begin it at the targets' odds."""

    def forward(self, x_N4L: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, T) of one-hot windows (N, 4, window)."""
        return self.output(self.hidden(x_N4L))

    def lay_out(self) -> None:
        """Put the weights in the memory layout that runs fastest; called after they are loaded."""
