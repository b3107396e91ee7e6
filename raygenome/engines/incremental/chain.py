"""What a net is to the incremental engine, and why sharing between windows is exact.

A chain is stages of (convolution, batch norm, activation, max pool) and then linear layers, the
head. Nothing in it looks at where a window begins: a convolution's output is a function of the
bases under it, wherever they are. So instead of windows this module has *positions*. Number the
bases of a piece of genome p = 0, 1, 2, ..., and let every activation of every stage be named by
the first base of its receptive field:

    conv       a[p] = bias + sum over k of  W_k m[p + stride * k]         k < kernel
    activate                t(a[p])
    pool       m'[p] = max over i of  t(a[p + stride * i])                i < pool
    next stage stride' = stride * pool

The window that begins at base q has, at this stage, exactly the *lattice* q, q + stride, q +
2 stride, ...: the pools of two windows cover the same bases when their lattices coincide. For
DeepSEA (kernel 8, pools of 4, drawn shorter than they are):

    bases        q . . . . . . . . . . . . . . . . . . . . . . . . . . .  stride 1
    stage 2      q       +4      +8      +12     +16     +20     +24      stride 4
    stage 3      q                               +16                      stride 16
    head         z(q) = c + sum over j of  F_j h[q + 16 j]                j < 53

    the window at q + 16 has its lattice of stage 3 on the same points, except at the ends;
    the window at q + 1 has other points. It shares the first convolution's rows with the window
    at q, and its other rows with the windows at q + 1 + 4 n and q + 1 + 16 n.

So neighbouring windows share rows a[p]. The rows depend on the genome only, not on a window, and
each row is computed by the net's own formula: that is why sharing is exact. Only the first
`receptive` bases of a window matter (995 of DeepSEA's 1,000), since pools drop the remainder.

The reverse strand needs no formulas of its own: it is the same net on the reverse complement of
the L bases. There the window at q begins at L - q - width, and the variant at index c of its window
is at width - 1 - c.

One changed base changes an interval of each stage, at a fixed place of the window (`changed_by`).
At DeepSEA's centre, 499, these are 8 of the 988 convolution outputs in use, 9 of 240, and 10 of 53.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Activation(NamedTuple):
    """An elementwise function; a `monotone` one gives the same after a max pool as before it."""

    name: str
    apply_: Callable[[torch.Tensor], torch.Tensor]
    monotone: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """Convolution (batch norm folded in), activation and pool.

    Attributes:
        weight: float32 (outputs, inputs, kernel).
        bias: float32 (outputs,).
        activation: the activation after the convolution.
        pool: width of the pool, 1 for none.
        stride: bases between the lattice points of its input.
        groups: pooled outputs that a window uses; it uses `pool` times as many of the convolution.
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
    """What one changed base changes in a stage, as half-open intervals of indices in the window.

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
        """Return, stage by stage, the positions that a change of the base at `index` reaches.

        The list is empty when that base lies outside the receptive field.
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
