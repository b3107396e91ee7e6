"""The shared trunk: every activation that some window of a stretch needs, computed once.

Positions are indices into the codes of a stretch (see `chain` for what a position is). From the
positions whose features are needed, masks say, stage by stage from the back, which rows each
convolution and each pool must have; convolutions then run forward over blocks of lattice points
that cover those rows. Where windows are dense, blocks are full and shared; where a window stands
alone, they hold its own lattice and nothing else: no case needs code of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch

from raygenome.engines.incremental.buffers import Scratch
from raygenome.engines.incremental.chain import Chain, Stage
from raygenome.engines.incremental.convolution import FastConv
from raygenome.engines.incremental.gemm import Gemm

#: Rows of the first convolution, or of a pool, computed at once: they stay in cache.
_ROWS = {"cpu": 1024, "cuda": 1 << 16}


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of activations by position: `values` (rows, channels), `of` int32 (positions,).

    Row 0 of `values` is zeros, and stands for every position that is not held.
    """

    values: torch.Tensor
    of: np.ndarray


@dataclass(frozen=True, eq=False)
class StageRows:
    """What the trunk keeps of a stage: its convolution before activation, and pooled outputs.

    Both last until the scratch they are in runs the trunk again. Of the first stage, `convolved`
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
        gemm: what multiplies.
    """

    def __init__(
        self, chain: Chain, convs: list[FastConv], table: torch.Tensor, gemm: Gemm
    ) -> None:
        self._chain = chain
        self.convs = convs
        self.first = FirstConv(chain.stages[0], table, gemm)
        self._rows = _ROWS[gemm.device.type]
        self._device = gemm.device

    def run(self, codes: np.ndarray, features: np.ndarray, scratch: Scratch) -> list[StageRows]:
        """Return the rows of every stage.

        Args:
            codes: of the stretch, uint8 (positions,).
            features: bool (positions,), where features are needed.
            scratch: of this thread, where the rows are.
        """
        wanted = self._wanted(features)
        rows = [StageRows(None, self._first_stage(codes, *wanted[0], scratch))]
        for i, conv in enumerate(self.convs, 1):
            outputs, pooled = wanted[i]
            convolved = self._convolve(i, conv, rows[-1].pooled, outputs, scratch)
            rows.append(StageRows(convolved, self._pool(i, convolved, pooled, scratch)))
        return rows

    def _wanted(self, features: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return by stage the positions, sorted, of the conv outputs and pooled rows needed."""
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
        self, codes: np.ndarray, outputs: np.ndarray, pooled: np.ndarray, scratch: Scratch
    ) -> Rows:
        stage = self._chain.stages[0]
        windows = self.first.windows(codes)
        values = scratch.take("pooled0", len(pooled) + 1, self.first.outputs)
        values[0] = 0
        # Sorted by position, the rows under one pool (stride 1) are neighbours.
        first_row = np.searchsorted(outputs, pooled)
        for begin in range(0, len(pooled), self._rows):
            end = min(begin + self._rows, len(pooled))
            low, high = first_row[begin], first_row[end - 1] + stage.pool
            convolved = self.first(windows, index_tensor(outputs[low:high], self._device))
            index = first_row[begin:end] - low + np.arange(stage.pool)[:, None]
            out = values[begin + 1 : end + 1]
            pool_rows(stage, convolved, index_tensor(index, self._device), out)
        return Rows(values, _row_of(pooled, len(codes)))

    def _convolve(
        self, i: int, conv: FastConv, source: Rows, outputs: np.ndarray, scratch: Scratch
    ) -> Rows:
        stage = self._chain.stages[i]
        form = conv.form
        starts = cover(outputs, stage.stride, form.outputs)
        reach = stage.stride * form.points
        of = np.pad(source.of, (0, reach))
        offsets = stage.stride * np.arange(form.points)[:, None]
        values = scratch.take(f"convolved{i}", 1 + len(starts) * form.outputs, conv.outputs)
        values[0] = 0
        row_of = np.zeros(len(of), dtype=np.int32)
        row = 1
        index = index_tensor(of[starts + offsets], self._device)
        for part, y in conv(source.values, index, scratch):
            made = starts[part] + offsets[: form.outputs]
            values[row : row + made.size] = y.flatten(0, 1)
            row_of[made] = np.arange(row, row + made.size, dtype=np.int32).reshape(made.shape)
            row += made.size
        return Rows(values, row_of[: len(source.of)])

    def _pool(self, i: int, convolved: Rows, pooled: np.ndarray, scratch: Scratch) -> Rows:
        stage = self._chain.stages[i]
        values = scratch.take(f"pooled{i}", len(pooled) + 1, convolved.values.shape[1])
        values[0] = 0
        offsets = stage.stride * np.arange(stage.pool)[:, None]
        for begin in range(0, len(pooled), self._rows):
            some = pooled[begin : begin + self._rows]
            index = index_tensor(convolved.of[some + offsets], self._device)
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
    """Return the first positions of blocks that cover `positions`, greedily.

    A block that begins at p covers p, p + stride, ..., `outputs` of them. Positions apart by other
    than multiples of `stride` never share one.

    Args:
        positions: int64, sorted, at least one.
        stride: of the lattice.
        outputs: positions that a block covers.
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
    """Return where `mask` moved right by 0, stride, ..., `count` times in all, is set."""
    out = mask.copy()
    for i in range(1, count):
        out[i * stride :] |= mask[: len(mask) - i * stride]
    return out


def _row_of(positions: np.ndarray, length: int) -> np.ndarray:
    """Return the rows of `positions`, held in their order after row 0."""
    row_of = np.zeros(length, dtype=np.int32)
    row_of[positions] = np.arange(1, len(positions) + 1)
    return row_of


def index_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an index tensor on the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
    if device.type == "cuda":  # from pinned memory, so that nobody waits for it
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
