"""Reads arrays of published files in blocks of rows, checks them, and returns codes and labels.

An array is an `h5py.Dataset` or a NumPy array; both can be sliced. A block is aligned to the file's
chunks, so that each chunk is read and decompressed once. The last block is kept, so that readers
may ask for any ranges of rows in order. Only one block is in memory, for files of any size.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from raygenome.datasets.stored import take
from raygenome.errors import DataError
from raygenome.genome.sequence import BASES, N_CODE

#: Bytes of a block's codes, and of the raw values that are read at a time to make them.
_BLOCK_BYTES = 1 << 25
#: Blocks grow to the file's chunks up to this factor; longer chunks are decompressed repeatedly.
_MOST_BLOCKS = 8
#: The value of all four channels for an N in some files.
_QUARTER = 0.25


class Axes(NamedTuple):
    """The axes of the array; all other axes have length 1."""

    rows: int
    channels: int
    positions: int


class Blocks:
    """Rows that are loaded one block at a time.

    Args:
        n_rows: number of rows.
        block: rows per block.
        load: returns rows [begin, end) as an array (n, ...).
    """

    def __init__(self, n_rows: int, block: int, load: Callable[[int, int], np.ndarray]) -> None:
        self.n_rows = n_rows
        self._block = block
        self._load = load
        self._first = -1
        self._kept = np.empty(0)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return rows [begin, end)."""
        pieces = []
        while begin < end:
            first = begin // self._block * self._block
            stop = min(end, first + self._block)
            if first != self._first:
                self._first, self._kept = -1, np.empty(0)  # two blocks may not fit in memory
                self._kept = self._load(first, min(first + self._block, self.n_rows))
                self._first = first
            pieces.append(self._kept[begin - first : stop - first])
            begin = stop
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def window_blocks(
    array: Any,
    axes: Axes,
    channels: str,
    where: str,
    *,
    hint: Callable[[np.ndarray], str] = lambda _: "",
) -> Blocks:
    """Return one-hot windows as blocks of codes, uint8 (n, window_size).

    Args:
        array: the windows, numbers or bool, 4 long along the channels.
        axes: the axes of `array`.
        channels: the bases of the channels, such as "AGCT".
        where: name of the array in messages.
        hint: called with the values (4, window_size) of a row that is not one-hot; returns what
            the user can do about it, or "".
    """
    n_rows, window_size = array.shape[axes.rows], array.shape[axes.positions]
    chunks = getattr(array, "chunks", None)
    chunk = (chunks[axes.rows], chunks[axes.positions]) if chunks else (1, 1)
    block = _aligned(_BLOCK_BYTES // window_size, chunk[0])

    def load(begin: int, end: int) -> np.ndarray:
        codes = np.empty((end - begin, window_size), dtype=np.uint8)
        for row, position in _slabs(array, axes, chunk, (begin, end)):
            values = _cut(array, axes, row, position, where)
            found, wrong = codes_of(values, channels)
            if wrong is not None:
                at, offset = row.start + wrong[0], position.start + wrong[1]
                bases = " ".join(f"{float(value):g}" for value in values[wrong[0], :, wrong[1]])
                whole = _cut(array, axes, slice(at, at + 1), slice(0, window_size), where)
                raise DataError(
                    f"{where}: row {at}, position {offset} (from 0) holds {bases}; a window is "
                    f"one-hot over {channels}, or all 0 or all 0.25 for N",
                    hint(whole[0]),
                )
            codes[row.start - begin : row.stop - begin, position] = found
        return codes

    return Blocks(n_rows, block, load)


def label_blocks(array: Any, row_axis: int, where: str) -> Blocks:
    """Return labels, 2-D numbers or bool of 0 and 1, as blocks of uint8 (n, n_targets)."""
    n_rows, n_targets = array.shape[row_axis], array.shape[1 - row_axis]
    chunks = getattr(array, "chunks", None)
    block = _aligned(
        _BLOCK_BYTES // (n_targets * array.dtype.itemsize), chunks[row_axis] if chunks else 1
    )

    def load(begin: int, end: int) -> np.ndarray:
        index = (slice(begin, end), slice(None))
        values = take(array, index if row_axis == 0 else index[::-1], where)
        values = values if row_axis == 0 else values.T
        labels = values == 1
        wrong = (values != 0) != labels
        if wrong.any():
            row, target = np.argwhere(wrong)[0].tolist()
            raise DataError(
                f"{where}: row {begin + row}, target {target} (from 0) holds "
                f"{float(values[row, target]):g}; labels are 0 or 1"
            )
        return np.ascontiguousarray(labels).view(np.uint8)

    return Blocks(n_rows, block, load)


def codes_of(values: np.ndarray, channels: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return the codes of one-hot windows, and the first position that is not one-hot.

    Args:
        values: (n, 4, length), numbers or bool.
        channels: the bases of the axis of 4.

    Returns:
        uint8 (n, length), in the memory order of `values`; and (row, position) of the first
        position that is neither one 1 among 0s, nor all 0, nor all 0.25; None if there is none.
    """
    strange = None
    if values.dtype == bool:
        hot = values.view(np.uint8)
    elif values.dtype == np.uint8 and values.max(initial=0) <= 1:
        hot = values
    else:
        is_one = values == 1
        strange = ((values != 0) != is_one).any(axis=1)
        if strange.any():
            strange &= ~(values == _QUARTER).all(axis=1)
        hot = is_one.view(np.uint8)
    plane = {base: hot[:, channels.index(base)] for base in BASES}
    total = plane["A"] + plane["C"] + plane["G"] + plane["T"]
    codes = plane["T"] * np.uint8(3)
    codes += plane["G"]
    codes += plane["G"]
    codes += plane["C"]
    if total.max(initial=1) > 1:
        strange = (total > 1) if strange is None else strange | (total > 1)
    if total.min(initial=1) == 0:
        codes[total == 0] = N_CODE
    if strange is None or not strange.any():
        return codes, None
    row, position = np.argwhere(strange)[0].tolist()
    return codes, (row, position)


def _aligned(wanted: int, chunk: int) -> int:
    """Return about `wanted` rows or positions, in whole chunks unless those are far too long."""
    return max(1, min(max(1, wanted // chunk) * chunk, _MOST_BLOCKS * wanted))


def _slabs(
    array: Any, axes: Axes, chunk: tuple[int, int], rows: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of rows and positions that cover a block; each is one read.

    Values that are adjacent in the file are read together: whole rows where the rows are the
    slowest axis, else all rows of some positions.
    """
    (begin, end), window_size = rows, array.shape[axes.positions]
    most = _BLOCK_BYTES // (4 * array.dtype.itemsize)
    step = window_size
    if axes.rows > axes.positions:
        step = min(window_size, _aligned(most // (end - begin), chunk[1]))
    row_step = _aligned(most // step, chunk[0])
    for row in range(begin, end, row_step):
        for position in range(0, window_size, step):
            yield (
                slice(row, min(row + row_step, end)),
                slice(position, min(position + step, window_size)),
            )


def _cut(array: Any, axes: Axes, rows: slice, positions: slice, where: str) -> np.ndarray:
    """Return values (n, 4, length), in the memory order of the file."""
    index = [slice(None)] * len(array.shape)
    index[axes.rows], index[axes.positions] = rows, positions
    values = take(array, tuple(index), where)
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    values = np.transpose(values, (*axes, *others))
    return values.reshape(values.shape[:3]) if others else values
