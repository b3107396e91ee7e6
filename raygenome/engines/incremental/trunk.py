"""The shared trunk: computes each activation that any window of a sequence block needs, once.

Positions are indices into the codes of a sequence block (see `chain`). From the positions whose
features are needed, masks are computed stage by stage from the last to the first: the rows that
each convolution and each pool must compute. Convolutions then run forward over blocks of lattice
points that cover those rows. Where windows are dense, the blocks are full and shared. Where a
window stands alone, they hold only its own lattice. Both cases run the same code.
"""

from dataclasses import dataclass

import numpy as np
import torch

from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain, Stage
from raygenome.engines.incremental.convolution import FastConv
from raygenome.engines.incremental.gemm import Gemm

#: Rows of the first convolution, or of a pool, computed at once: they stay in cache.
_ROWS = {"cpu": 1024, "cuda": 1 << 16}


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of activations by position.

    Attributes:
        values: (rows, channels); row 0 is zeros, and stands for every position that is not held.
        of: the row of each position, int32 (positions,).
    """

    values: torch.Tensor
    of: np.ndarray


@dataclass(frozen=True, eq=False)
class StageRows:
    """The rows of a stage that the trunk keeps: convolution before activation, and pooled outputs.

    Both lie in buffers that the next run of the trunk overwrites. For the first stage `convolved`
    is None: it is cheap to compute again.
    """

    convolved: Rows | None
    pooled: Rows


class Trunk:
    """Runs the stages of a chain.

    Args:
        chain: the net.
        convs: the convolutions of all stages but the first.
        table: one-hot rows, (5, 4).
        gemm: computes the matrix products.
    """

    def __init__(
        self, chain: Chain, convs: list[FastConv], table: torch.Tensor, gemm: Gemm
    ) -> None:
        self._chain = chain
        self.convs = convs
        self.first = FirstConv(chain.stages[0], table, gemm)
        self._rows = _ROWS[gemm.device.type]
        self._device = gemm.device

    def run(self, codes: np.ndarray, features: np.ndarray, buffers: BufferPool) -> list[StageRows]:
        """Return the rows of every stage.

        Args:
            codes: codes of the sequence block, uint8 (positions,).
            features: bool (positions,), true where features are needed.
            buffers: buffers of this thread; they hold the rows.
        """
        wanted = self._wanted(features)
        rows = [StageRows(None, self._first_stage(codes, *wanted[0], buffers))]
        for i, conv in enumerate(self.convs, 1):
            outputs, pooled = wanted[i]
            convolved = self._convolve(i, conv, rows[-1].pooled, outputs, buffers)
            rows.append(StageRows(convolved, self._pool(i, convolved, pooled, buffers)))
        return rows

    def _wanted(self, features: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return per stage the sorted positions of the convolution outputs and pooled rows."""
        wanted = []
        needed = features
        for stage in reversed(self._chain.stages):
            pooled = np.flatnonzero(needed)
            needed = _shifted(needed, stage.pool, stage.stride)
            outputs = np.flatnonzero(needed)
            needed = _shifted(needed, stage.kernel, stage.stride)
            wanted.append((outputs, pooled))
        return wanted[::-1]

    def _first_stage(
        self, codes: np.ndarray, outputs: np.ndarray, pooled: np.ndarray, buffers: BufferPool
    ) -> Rows:
        stage = self._chain.stages[0]
        windows = self.first.windows(codes)
        values = buffers.take("pooled0", len(pooled) + 1, self.first.outputs)
        values[0] = 0
        # The outputs are sorted by position, so the rows under one pool (stride 1) are neighbours.
        first_row = np.searchsorted(outputs, pooled)
        for begin in range(0, len(pooled), self._rows):
            end = min(begin + self._rows, len(pooled))
            low, high = first_row[begin], first_row[end - 1] + stage.pool
            convolved = self.first(windows, index_tensor(outputs[low:high], self._device))
            index = first_row[begin:end] - low + np.arange(stage.pool)[:, None]  # (pool, rows)
            out = values[begin + 1 : end + 1]
            pool_rows(stage, convolved, index_tensor(index, self._device), out)
        return Rows(values, _row_of(pooled, len(codes)))

    def _convolve(
        self, i: int, conv: FastConv, source: Rows, outputs: np.ndarray, buffers: BufferPool
    ) -> Rows:
        stage = self._chain.stages[i]
        algorithm = conv.algorithm
        starts = cover(outputs, stage.stride, algorithm.outputs)
        reach = stage.stride * algorithm.points
        of = np.pad(source.of, (0, reach))
        offsets = stage.stride * np.arange(algorithm.points)[:, None]
        values = buffers.take(f"convolved{i}", 1 + len(starts) * algorithm.outputs, conv.outputs)
        values[0] = 0
        row_of = np.zeros(len(of), dtype=np.int32)
        row = 1
        index = index_tensor(of[starts + offsets], self._device)  # (points, blocks)
        for part, y in conv(source.values, index, buffers):  # y: (outputs, some blocks, channels)
            made = starts[part] + offsets[: algorithm.outputs]  # their positions
            values[row : row + made.size] = y.flatten(0, 1)
            row_of[made] = np.arange(row, row + made.size, dtype=np.int32).reshape(made.shape)
            row += made.size
        return Rows(values, row_of[: len(source.of)])

    def _pool(self, i: int, convolved: Rows, pooled: np.ndarray, buffers: BufferPool) -> Rows:
        stage = self._chain.stages[i]
        values = buffers.take(f"pooled{i}", len(pooled) + 1, convolved.values.shape[1])
        values[0] = 0
        offsets = stage.stride * np.arange(stage.pool)[:, None]
        for begin in range(0, len(pooled), self._rows):
            some = pooled[begin : begin + self._rows]
            index = index_tensor(convolved.of[some + offsets], self._device)  # (pool, rows)
            pool_rows(stage, convolved.values, index, values[begin + 1 : begin + 1 + len(some)])
        return Rows(values, _row_of(pooled, len(convolved.of)))


class FirstConv:
    """The first convolution, from codes: one-hot rows side by side, times a matrix."""

    def __init__(self, stage: Stage, table: torch.Tensor, gemm: Gemm) -> None:
        self.outputs = len(stage.weight)
        self._kernel = stage.kernel
        self._table = table
        self._gemm = gemm.exact()  # the first layer costs little
        self._weight = self._gemm.weight(stage.weight.transpose(1, 2).flatten(1))
        self._bias = stage.bias.to(gemm.device, torch.float32)

    def windows(self, codes: np.ndarray) -> torch.Tensor:
        """Return a view (..., n - kernel + 1, kernel * 4) of the one-hot rows of codes (..., n)."""
        one_hot = self._table[index_tensor(codes, self._table.device)].flatten(-2)
        return one_hot.unfold(-1, 4 * self._kernel, 4)

    def __call__(self, windows: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        """Return (n, outputs), before activation, of rows `index` of `windows`, or of all."""
        rows = windows.reshape(-1, windows.shape[-1]) if index is None else windows[index]
        return self._gemm.rows(rows, self._weight, self._bias)


def pool_rows(
    stage: Stage, convolved: torch.Tensor, index: torch.Tensor, out: torch.Tensor
) -> None:
    """Write the pooled activations of rows `index` (pool, n) of `convolved` to `out` (n, C)."""
    activation = stage.activation
    torch.index_select(convolved, 0, index[0], out=out)
    if not activation.monotone:
        out.copy_(activation.apply_(out))
    for i in range(1, stage.pool):
        more = convolved.index_select(0, index[i])
        if not activation.monotone:
            more = activation.apply_(more)
        torch.maximum(out, more, out=out)
    if activation.monotone:
        out.copy_(activation.apply_(out))


def cover(positions: np.ndarray, stride: int, outputs: int) -> np.ndarray:
    """Return the first positions of blocks that cover `positions`, chosen greedily.

    A block that begins at p covers the `outputs` positions p, p + stride, ... Two positions can
    share a block only if they are a multiple of `stride` apart.

    Args:
        positions: int64, sorted, at least one.
        stride: stride of the lattice.
        outputs: number of positions that a block covers.
    """
    lane = positions % stride
    span = int(positions[-1]) + stride * outputs + 1
    keys = np.sort(lane * span + positions)
    following = np.searchsorted(keys, keys + stride * outputs).tolist()
    chosen = []
    at = 0
    while at < len(keys):
        chosen.append(at)
        at = following[at]
    return keys[chosen] % span


def _shifted(mask: np.ndarray, count: int, stride: int) -> np.ndarray:
    """Return the union of `mask` shifted right by 0, stride, ..., (count - 1) * stride."""
    out = mask.copy()
    for i in range(1, count):
        out[i * stride :] |= mask[: len(mask) - i * stride]
    return out


def _row_of(positions: np.ndarray, length: int) -> np.ndarray:
    """Return the row of each position; `positions` are rows 1, 2, ..., the others are row 0."""
    row_of = np.zeros(length, dtype=np.int32)
    row_of[positions] = np.arange(1, len(positions) + 1)
    return row_of


def index_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an index tensor on the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    if device.type == "cuda":  # pinned memory, so that the copy does not block
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
