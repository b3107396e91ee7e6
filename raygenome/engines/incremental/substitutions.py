"""Substitutions of one base, as differences that travel through the net.

A window differs from its reference window in one base, always at the same index of the window. So
the same few activations can change in every window (`Chain.changed_by`). A convolution is linear,
so its effect on a difference needs no reference:

    d_0   = pooled(alt) - pooled(ref)                  first stage, from the bases
    da    = full convolution of d with the weights     2 or 3 rows in, 9 or 10 rows out
    d'    = pooled(a + da) - pooled(a)                 a: the trunk's row, before activation
    z_alt = z_ref + F_mid d'                           10 of the head's 53 columns

An activation that is computed once has one rounding error instead of two. `jobs/bench exact` prints
the distance from exact arithmetic, beside that of the plain pass.
"""

import numpy as np
import torch

from raygenome.engines.incremental.bilinear import Bilinear, full
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain, Change, Stage
from raygenome.engines.incremental.convolution import FastConv
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.trunk import FirstConv, StageRows, index_tensor
from raygenome.engines.incremental.weights import WeightStore

#: The most noise of an algorithm, where factors are rounded before products (True) and where not.
_MOST_NOISE = {True: 1.6, False: 5.0}


class Substitutions:
    """Computes the head's first pre-activation of substituted windows.

    Args:
        chain: the net.
        index: of the substituted base in its window, on this strand.
        first: the first convolution.
        gemm: computes the matrix products.
        weights: makes and holds the weights.
    """

    def __init__(
        self, chain: Chain, index: int, first: FirstConv, gemm: Gemm, weights: WeightStore
    ) -> None:
        self._changes = chain.changed_by(index)
        self.reaches = bool(self._changes)
        if not self.reaches:
            return
        self._chain = chain
        self._index = index
        self._first = first
        self._gemm = gemm
        self._convs = [
            _delta_conv(f"delta{i}", chain.stages[i], self._changes[i], gemm, weights)
            for i in range(1, len(chain.stages))
        ]
        begin, end = self._changes[-1].groups
        middle = chain.head[0].weight[:, begin:end]
        self._head = weights.weight(f"head{begin}-{end}", middle.flatten(1))

    def delta(
        self,
        codes: np.ndarray,
        rows: list[StageRows],
        anchors: np.ndarray,
        bases: np.ndarray,
        buffers: BufferPool,
    ) -> torch.Tensor:
        """Return z_alt - z_ref, float32 (n, head's first outputs).

        Args:
            codes: of the sequence block, uint8 (positions,).
            rows: of its trunk.
            anchors: int64 (n,), of the windows.
            bases: uint8 (n,), the codes of ALT.
            buffers: of this thread.
        """
        d = self._first_stage(codes, anchors, bases)  # (n, groups, channels)
        for i, conv in enumerate(self._convs, 1):
            out = buffers.take(
                f"d{i}", len(anchors), _length(self._changes[i].groups), conv.outputs
            )
            self._next(i, d, rows[i], anchors, buffers, out)
            d = out
        return self._gemm.rows(d.flatten(1), self._head)

    def _first_stage(
        self, codes: np.ndarray, anchors: np.ndarray, bases: np.ndarray
    ) -> torch.Tensor:
        stage, change = self._chain.stages[0], self._changes[0]
        begin = change.groups[0] * stage.pool
        end = change.groups[1] * stage.pool + stage.kernel - 1
        under = codes[anchors[:, None] + np.arange(begin, end)]  # (n, bases under the change)
        both = np.stack([under, under])  # (ref and alt, n, bases)
        both[1, :, self._index - begin] = bases
        convolved = self._first(self._first.windows(both))
        convolved = convolved.view(2, len(anchors), -1, stage.pool, self._first.outputs)
        ref, alt = _pooled(stage, convolved, dim=3)
        return alt - ref

    def _next(
        self,
        i: int,
        d: torch.Tensor,
        held: StageRows,
        anchors: np.ndarray,
        buffers: BufferPool,
        out: torch.Tensor,
    ) -> None:
        """Write the pooled difference after stage i, `out` (n, groups, C'), from d (n, rows, C)."""
        assert held.convolved is not None
        stage, change, conv = self._chain.stages[i], self._changes[i], self._convs[i - 1]
        groups = np.arange(*change.groups)[:, None]
        outputs = np.arange(groups[0, 0] * stage.pool, (groups[-1, 0] + 1) * stage.pool)[:, None]
        convolved = held.convolved.of[anchors + stage.stride * outputs]
        pooled = held.pooled.of[anchors + stage.stride * stage.pool * groups]
        changed = slice(*(np.array(change.outputs) - outputs[0, 0]))
        index = torch.arange(d.shape[0] * d.shape[1], device=d.device).view(d.shape[:2]).t()
        for part, delta in conv(d.flatten(0, 1), index, buffers):
            alt = _gathered(held.convolved.values, convolved[:, part])
            alt[changed] += delta
            alt = _pooled(stage, alt.view(len(groups), stage.pool, *alt.shape[1:]), dim=1)
            ref = _gathered(held.pooled.values, pooled[:, part])
            torch.sub(alt, ref, out=out[part].transpose(0, 1))


def _delta_conv(
    name: str, stage: Stage, change: Change, gemm: Gemm, weights: WeightStore
) -> FastConv:
    """Return the convolution from the rows that change to all outputs in the window they reach."""
    algorithm = full(_length(change.inputs), stage.kernel, _MOST_NOISE[gemm.rounds])
    skipped = change.outputs[0] - (change.inputs[0] - stage.kernel + 1)
    kept = slice(skipped, skipped + _length(change.outputs))
    algorithm = Bilinear(algorithm.to_outputs[kept], algorithm.to_weights, algorithm.to_inputs)
    weight = weights.spectral(name, algorithm, stage.weight.transpose(1, 2))
    return FastConv(algorithm, weight, None, gemm)


def _length(interval: tuple[int, int]) -> int:
    return interval[1] - interval[0]


def _pooled(stage: Stage, convolved: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the activated maxima along `dim`; `convolved` may be overwritten."""
    if stage.pool == 1:
        return stage.activation.apply_(convolved.squeeze(dim))
    if stage.activation.monotone:
        return stage.activation.apply_(convolved.amax(dim))
    return stage.activation.apply_(convolved).amax(dim)


def _gathered(values: torch.Tensor, index: np.ndarray) -> torch.Tensor:
    """Return (positions, n, channels) of `values` by index (positions, n)."""
    flat = index_tensor(index.reshape(-1), values.device)
    return values.index_select(0, flat).view(*index.shape, -1)
