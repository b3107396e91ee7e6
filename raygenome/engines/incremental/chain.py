"""The planner: reads a net's list of layers, and says where everything lies on the genome.

A chain is stages of (convolution, batch norm, activation, max pool) and then linear layers, the
head. Nothing in it looks at where a window begins: a convolution's output is a function of the
bases under it, wherever they are. So instead of windows this module has *positions*. Number the
bases of a stretch of genome p = 0, 1, 2, ..., and let every activation of every stage be named by
the first base of its receptive field:

    conv       a[p] = bias + sum over k of  W_k m[p + stride * k]         k < kernel
    activate                t(a[p])
    pool       m'[p] = max over i of  t(a[p + stride * i])                i < pool
    next stage stride' = stride * pool

The window that begins at base q holds of this stage exactly the *lattice* q, q + stride, q +
2 stride, ...: pools of two windows fall on the same bases when their lattices do. For DeepSEA
(kernel 8, pools of 4, drawn shorter than they are):

    bases        q . . . . . . . . . . . . . . . . . . . . . . . . . . .  stride 1
    stage 2      q       +4      +8      +12     +16     +20     +24      stride 4
    stage 3      q                               +16                      stride 16
    head         z(q) = c + sum over j of  F_j h[q + 16 j]                j < 53

    the window at q + 16 has its lattice of stage 3 on the same points, but for the ends;
    the window at q + 1 has other points, and shares the rows that dense variants ask for.

So neighbouring windows share rows a[p], which depend on the genome only and not on any window, and
the formula of each row is the net's own: that is why sharing them is exact. Of a window, only the
first `receptive` bases matter (995 of DeepSEA's 1,000), since pools drop what is left over.

The other strand needs no formulas of its own: it is the same net on the reverse complement of the
stretch, where the window that began at q begins at L - q - width and the variant, at index c of
its window, stands at width - 1 - c.

What one changed base changes is an interval at each stage, at fixed places of the window
(`changed_by`). At DeepSEA's centre, 499, of 993, 241 and 53 convolution outputs change 8, 9 and 10.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn


class Activation(NamedTuple):
    """An elementwise function; `monotone` ones may be taken after a max pool instead of before."""

    name: str
    apply_: Callable[[torch.Tensor], torch.Tensor]
    monotone: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """Convolution (batch norm folded in), activation and pool.

    Attributes:
        weight: float32 (outputs, inputs, kernel).
        bias: float32 (outputs,).
        activation: what follows the convolution.
        pool: width of the pool, 1 for none.
        stride: bases between the lattice points of its input.
        groups: pooled outputs a window uses; of the convolution it uses `pool` times as many.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    activation: Activation
    pool: int
    stride: int
    groups: int

    @property
    def kernel(self) -> int:
        """Taps of the convolution."""
        return self.weight.shape[2]

    @property
    def outputs(self) -> int:
        """Convolution outputs that a window uses."""
        return self.pool * self.groups

    @property
    def inputs(self) -> int:
        """Lattice points of its input that a window uses."""
        return self.outputs + self.kernel - 1


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer of the head, batch norm folded in.

    `weight` is float32 (outputs, length, channels): the first one reads `length` positions of the
    last stage, position-major; the others have length 1. The last one has no activation.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    activation: Activation


class Change(NamedTuple):
    """What one changed base changes of a stage, as half-open intervals of indices in the window.

    `inputs` are input lattice points, `outputs` convolution outputs, `groups` pooled outputs.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    groups: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Chain:
    """A net as stages and a head; see the module's text.

    Attributes:
        stages: front to back, at least one.
        head: linear layers, at least one.
        width: bases of a window.
    """

    stages: tuple[Stage, ...]
    head: tuple[Linear, ...]
    width: int

    @property
    def features(self) -> int:
        """Positions of the last stage that the head reads."""
        return self.stages[-1].groups

    @property
    def feature_stride(self) -> int:
        """Bases between them."""
        return self.stages[-1].stride * self.stages[-1].pool

    @property
    def receptive(self) -> int:
        """Bases of a window that matter, counted from its first."""
        return self.stages[0].inputs

    @property
    def feature_receptive(self) -> int:
        """Bases under one feature."""
        return self.receptive - (self.features - 1) * self.feature_stride

    def changed_by(self, index: int) -> list[Change]:
        """Return, stage by stage, what the base at `index` of a window reaches.

        Empty when that base lies outside the receptive field.
        """
        changes = []
        first, last = index, index  # of the inputs, inclusive
        for stage in self.stages:
            low = max(first - stage.kernel + 1, 0)
            high = min(last, stage.outputs - 1)
            if low > high:
                return []
            groups = (low // stage.pool, high // stage.pool + 1)
            changes.append(Change((first, last + 1), (low, high + 1), groups))
            first, last = groups[0], groups[1] - 1
        return changes


class NoChainError(Exception):
    """A net that is no chain; the text says which layer, in one line."""


def plan_chain(net: nn.Module) -> Chain:
    """Return the chain that `net` is.

    Args:
        net: has `layers`, an `nn.Sequential` front to back of layers along the last axis
            (convolutions of kernel (1, k), as `models.layers` makes them), and `config["window"]`.

    Raises:
        NoChainError: the net is no chain of layers that this module knows.
    """
    layers = getattr(net, "layers", None)
    config = getattr(net, "config", None)
    if not isinstance(layers, nn.Sequential) or not config or "window" not in config:
        raise NoChainError("the net is not a plain list of layers")
    blocks = list(_blocks(layers))
    width = int(config["window"])
    lengths = _lengths(blocks, width)
    # The head begins at the first layer that leaves one position; all after it are 1 wide.
    head_begin = next((i for i, length in enumerate(lengths) if length == 1), None)
    if not head_begin or lengths[-1] != 1:
        raise NoChainError("the net does not end in linear layers after a convolution")
    if any(block.pool > 1 for block in blocks[head_begin:]):
        raise NoChainError("there is a pool after the first linear layer")
    groups = blocks[head_begin].weight.shape[2]
    stages: list[Stage] = []
    for block in reversed(blocks[:head_begin]):
        stage = Stage(block.weight, block.bias, block.activation, block.pool, 1, groups)
        stages.insert(0, stage)
        groups = stage.inputs
    stride = 1
    for i, stage in enumerate(stages):
        stages[i] = Stage(
            stage.weight, stage.bias, stage.activation, stage.pool, stride, stage.groups
        )
        stride *= stage.pool
    head = tuple(
        Linear(block.weight.transpose(1, 2).contiguous(), block.bias, block.activation)
        for block in blocks[head_begin:]
    )
    return Chain(tuple(stages), head, width)


@dataclass
class _Block:
    """A convolution and what follows it, as they are read."""

    weight: torch.Tensor
    bias: torch.Tensor
    activation: Activation
    pool: int = 1
    activated: bool = False
    pooled: bool = False


def _blocks(layers: nn.Sequential) -> Iterator[_Block]:
    block: _Block | None = None
    for name, layer in layers.named_children():
        if isinstance(layer, nn.Dropout | nn.Identity):
            continue
        if isinstance(layer, nn.Conv2d):
            if block is not None:
                yield block
            block = _convolution(name, layer)
        elif block is None:
            raise NoChainError(f"layer {name} ({type(layer).__name__}) comes before a convolution")
        elif isinstance(layer, nn.BatchNorm2d):
            if block.activated or block.pooled:
                raise NoChainError(f"batch norm {name} does not follow its convolution directly")
            _fold_norm(block, layer)
        elif isinstance(layer, nn.MaxPool2d):
            if block.pooled:
                raise NoChainError(f"pool {name} follows another pool")
            block.pool, block.pooled = _pool_width(name, layer), True
        else:
            activation = _activation(name, layer)
            if block.activated:
                raise NoChainError(f"activation {name} follows another activation")
            if block.pooled and not activation.monotone:
                raise NoChainError(f"activation {name} is not monotone and follows a pool")
            block.activation, block.activated = activation, True
    if block is not None:
        yield block


def _convolution(name: str, layer: nn.Conv2d) -> _Block:
    odd = {
        "padding": layer.padding not in ((0, 0), "valid"),
        "dilation": layer.dilation != (1, 1),
        "a stride": layer.stride != (1, 1),
        "groups": layer.groups != 1,
        "height": layer.kernel_size[0] != 1,
    }
    for what, found in odd.items():
        if found:
            raise NoChainError(f"convolution {name} has {what}")
    weight = layer.weight.detach()[:, :, 0]
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    return _Block(weight, bias, _NO_ACTIVATION)


def _fold_norm(block: _Block, norm: nn.BatchNorm2d) -> None:
    """Fold batch norm, as it is in evaluation, into the convolution before it, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise NoChainError("a batch norm keeps no running statistics")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None:
        gamma = norm.weight.detach().double()
        scale, shift = scale * gamma, shift * gamma
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    block.weight = (block.weight * scale[:, None, None]).float()
    block.bias = (block.bias * scale + shift).float()


def _pool_width(name: str, layer: nn.MaxPool2d) -> int:
    def pair(value: int | tuple[int, int]) -> tuple[int, int]:
        return (1, value) if isinstance(value, int) else (value[0], value[1])

    size, stride = pair(layer.kernel_size), pair(layer.stride)
    if size != stride or size[0] != 1:
        raise NoChainError(f"pool {name} overlaps or skips")
    if pair(layer.padding)[1] or pair(layer.dilation)[1] != 1 or layer.ceil_mode:
        raise NoChainError(f"pool {name} has padding, dilation or ceil_mode")
    return size[1]


_NO_ACTIVATION = Activation("none", lambda x: x, monotone=True)
#: Elementwise layers without parameters that are learned; those that never fall as x rises.
_MONOTONE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_OTHERS = (nn.GELU, nn.SiLU, nn.Mish)


def _activation(name: str, layer: nn.Module) -> Activation:
    if isinstance(layer, nn.Threshold):
        threshold, value = layer.threshold, layer.value
        return Activation(
            f"threshold({threshold}, {value})",
            lambda x: torch.threshold_(x, threshold, value),
            monotone=value <= threshold,
        )
    if isinstance(layer, nn.ReLU):
        return Activation("relu", torch.relu_, monotone=True)
    if isinstance(layer, _MONOTONE + _OTHERS):
        return Activation(type(layer).__name__.lower(), layer, isinstance(layer, _MONOTONE))
    raise NoChainError(f"layer {name} is a {type(layer).__name__}, which it does not know")


def _lengths(blocks: list[_Block], width: int) -> list[int]:
    """Return how many positions are left after each block of a window of `width` bases."""
    lengths = []
    for block in blocks:
        width = (width - block.weight.shape[2] + 1) // block.pool
        lengths.append(width)
    if not blocks or min(lengths) < 1:
        raise NoChainError("the window is too short for the layers")
    return lengths
