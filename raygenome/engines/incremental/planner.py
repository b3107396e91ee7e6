"""The planner: reads a net's list of layers and makes a chain of it, or says why it cannot.

Nothing here is specific to one net: strides, receptive field and used lengths follow from the list.
The values of the weights matter only for folding batch norm.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raygenome.engines.incremental.chain import Activation, Chain, Linear, Stage
from raygenome.models.layers import LayeredNet


class NoChainError(Exception):
    """A net that is not a chain; the text names the layer, in one line."""


def plan_chain(net: nn.Module) -> Chain:
    """Return `net` as a chain.

    Args:
        net: a `LayeredNet`: layers along the last axis, front to back.

    Raises:
        NoChainError: the net is not a chain of layers that this module knows.
    """
    if not _is_layered(net):
        raise NoChainError("the net is not a plain list of layers")
    assert isinstance(net, LayeredNet)  # for mypy
    blocks = list(_blocks(net.layers))
    width = int(net.config["window"])
    lengths = _lengths(blocks, width)
    # The head begins at the first layer that leaves one position; all later layers have width 1.
    head_begin = next((i for i, length in enumerate(lengths) if length == 1), None)
    if not head_begin or lengths[-1] != 1:
        raise NoChainError("the net does not end in linear layers after a convolution")
    if any(block.pooled for block in blocks[head_begin:]):
        raise NoChainError("there is a pool after the first linear layer")
    if blocks[-1].activated:
        name = list(net.layers._modules)[-1]
        raise NoChainError(f"there is an activation after the last linear layer, {name}")
    stages = _stages(blocks[:head_begin], blocks[head_begin].weight.shape[2])
    head = tuple(
        Linear(block.weight.transpose(1, 2).contiguous(), block.bias, block.activation)
        for block in blocks[head_begin:]
    )
    return Chain(stages, head, width)


def _is_layered(net: nn.Module) -> bool:
    """Return whether `net` is a `LayeredNet` that computes nothing besides its layers."""
    steps = ("forward", "hidden", "output")
    return (
        isinstance(net, LayeredNet)
        and all(getattr(type(net), step) is getattr(LayeredNet, step) for step in steps)
        and isinstance(net.layers, nn.Sequential)
    )


def _stages(blocks: list["_Block"], features: int) -> tuple[Stage, ...]:
    """Return the stages; the head reads `features` positions of the last one."""
    groups = [features]  # of each stage; a stage must give as many as the next one takes
    for block in reversed(blocks[1:]):
        groups.insert(0, block.pool * groups[0] + block.weight.shape[2] - 1)
    stride, stages = 1, []
    for block, used in zip(blocks, groups, strict=True):
        stages.append(Stage(block.weight, block.bias, block.activation, block.pool, stride, used))
        stride *= block.pool
    return tuple(stages)


@dataclass
class _Block:
    """A convolution and the layers after it, while the list is read."""

    weight: torch.Tensor
    bias: torch.Tensor
    activation: Activation
    pool: int = 1
    activated: bool = False
    pooled: bool = False


def _blocks(layers: nn.Sequential) -> Iterator[_Block]:
    block: _Block | None = None
    for name, layer in zip(layers._modules, layers, strict=True):  # the same layer may occur twice
        if type(layer) in (nn.Dropout, nn.Dropout2d, nn.Identity):
            continue
        if type(layer) is nn.Conv2d:
            if block is not None:
                yield block
            block = _convolution(name, layer)
        elif block is None:
            raise NoChainError(f"layer {name} ({type(layer).__name__}) comes before a convolution")
        elif type(layer) is nn.BatchNorm2d:
            if block.activated or block.pooled:
                raise NoChainError(f"batch norm {name} does not follow its convolution directly")
            _fold_norm(name, block, layer)
        elif type(layer) is nn.MaxPool2d:
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


def _fold_norm(name: str, block: _Block, norm: nn.BatchNorm2d) -> None:
    """Fold batch norm, in evaluation mode, into the convolution before it, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise NoChainError(f"batch norm {name} keeps no running statistics")
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
#: Elementwise layers without weights, and whether they are monotone.
_ELEMENTWISE: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.Sigmoid: lambda _: True,
    nn.Tanh: lambda _: True,
    nn.LeakyReLU: lambda layer: layer.negative_slope >= 0,
    nn.ELU: lambda layer: layer.alpha >= 0,
    nn.Softplus: lambda layer: layer.beta > 0 and layer.threshold >= 20,
    nn.GELU: lambda _: False,
    nn.SiLU: lambda _: False,
    nn.Mish: lambda _: False,
}


def _activation(name: str, layer: nn.Module) -> Activation:
    if type(layer) is nn.Threshold:
        threshold, value = layer.threshold, layer.value
        return Activation(
            f"threshold({threshold}, {value})",
            lambda x: torch.threshold_(x, threshold, value),
            monotone=value <= threshold,
        )
    if type(layer) is nn.ReLU:
        return Activation("relu", torch.relu_, monotone=True)
    if type(layer) in _ELEMENTWISE:
        return Activation(
            type(layer).__name__.lower(), layer, monotone=_ELEMENTWISE[type(layer)](layer)
        )
    raise NoChainError(f"layer {name} is a {type(layer).__name__}, which it cannot compute")


def _lengths(blocks: list[_Block], width: int) -> list[int]:
    """Return how many positions are left after each block of a window of `width` bases."""
    lengths = []
    for block in blocks:
        width = (width - block.weight.shape[2] + 1) // block.pool
        lengths.append(width)
    if not blocks or min(lengths) < 1:
        raise NoChainError("the window is too short for the layers")
    return lengths
