"""Arrays of other people's files: read a block of rows at a time, checked, made codes and labels.

An array is an `h5py.Dataset` or a NumPy array; both are cut with slices. A block is aligned to the
file's chunks, so that each chunk is read and unpacked once, and the last block read is kept, so
that readers may ask for any rows in order. Memory is that of a block, whatever the file's size.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from raygenome.datasets.stored import take
from raygenome.errors import DataError
from raygenome.genome.sequence import BASES, N_CODE

#: A block's codes, and the raw values read to make them at any one time, in bytes.
_BLOCK_BYTES = 1 << 25
#: Blocks grow to the file's chunks up to so many times that; longer chunks are unpacked repeatedly.
_MOST_BLOCKS = 8
#: What fills a window's N in some files, in all four channels.
_QUARTER = 0.25


class Axes(NamedTuple):
    """Which axis of the array is which; axes that are not named have length 1."""

    rows: int
    channels: int
    positions: int


class Blocks:
    """Rows that are loaded a block at a time.

    Args:
        rows: how many there are.
        block: rows of a block.
        load: returns rows [begin, end) as an array (n, ...).
    """

    def __init__(self, rows: int, block: int, load: Callable[[int, int], np.ndarray]) -> None:
        self.rows = rows
        self._block = block
        self._load = load
        self._first = -1
        self._kept = np.empty(0)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return rows [begin, end)."""
        parts = []
        while begin < end:
            first = begin // self._block * self._block
            stop = min(end, first + self._block)
            if first != self._first:
                self._first, self._kept = -1, np.empty(0)  # two blocks at once need not fit
                self._kept = self._load(first, min(first + self._block, self.rows))
                self._first = first
            parts.append(self._kept[begin - first : stop - first])
            begin = stop
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def window_blocks(
    array: Any,
    axes: Axes,
    channels: str,
    where: str,
    *,
    hint: Callable[[np.ndarray], str] = lambda _: "",
) -> Blocks:
    """Return one-hot windows as blocks of codes, uint8 (n, window).

    Args:
        array: the windows, numbers or bool, 4 long along the channels.
        axes: of `array`.
        channels: the bases of the channels, such as "AGCT".
        where: what messages call the array.
        hint: is given the values (4, window) of a row that is not one-hot; what it returns ends
            the message.
    """
    rows, window = array.shape[axes.rows], array.shape[axes.positions]
    chunks = getattr(array, "chunks", None)
    chunk = (chunks[axes.rows], chunks[axes.positions]) if chunks else (1, 1)
    block = _aligned(_BLOCK_BYTES // window, chunk[0])

    def load(begin: int, end: int) -> np.ndarray:
        codes = np.empty((end - begin, window), dtype=np.uint8)
        for row, position in _slabs(array, axes, chunk, (begin, end)):
            values = _cut(array, axes, row, position, where)
            found, wrong = codes_of(values, channels)
            if wrong is not None:
                at, offset = row.start + wrong[0], position.start + wrong[1]
                bases = " ".join(f"{float(value):g}" for value in values[wrong[0], :, wrong[1]])
                whole = _cut(array, axes, slice(at, at + 1), slice(0, window), where)
                raise DataError(
                    f"{where}: row {at}, position {offset} (from 0) holds {bases}; a window is "
                    f"one-hot over {channels}, or all 0 or all 0.25 for N{hint(whole[0])}"
                )
            codes[row.start - begin : row.stop - begin, position] = found
        return codes

    return Blocks(rows, block, load)


def label_blocks(array: Any, row_axis: int, where: str) -> Blocks:
    """Return labels, 2-D numbers or bool of 0 and 1, as blocks of uint8 (n, targets)."""
    rows, targets = array.shape[row_axis], array.shape[1 - row_axis]
    chunks = getattr(array, "chunks", None)
    block = _aligned(
        _BLOCK_BYTES // (targets * array.dtype.itemsize), chunks[row_axis] if chunks else 1
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

    return Blocks(rows, block, load)


def codes_of(values: np.ndarray, channels: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return the codes of one-hot windows, and where the first fault is.

    Args:
        values: (n, 4, length), numbers or bool.
        channels: the bases of the axis of 4.

    Returns:
        uint8 (n, length), in the memory order of `values`; and (row, position) of the first place
        that is neither one 1 among 0s, nor all 0, nor all 0.25, or None.
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
    """Yield rows and positions that cover a block, each as much as is read at once.

    What lies together in the file is read together: whole rows where the rows are the slowest
    axis, all rows of some positions else.
    """
    (begin, end), window = rows, array.shape[axes.positions]
    most = _BLOCK_BYTES // (4 * array.dtype.itemsize)
    step = window
    if axes.rows > axes.positions:
        step = min(window, _aligned(most // (end - begin), chunk[1]))
    row_step = _aligned(most // step, chunk[0])
    for row in range(begin, end, row_step):
        for position in range(0, window, step):
            yield (
                slice(row, min(row + row_step, end)),
                slice(position, min(position + step, window)),
            )


def _cut(array: Any, axes: Axes, rows: slice, positions: slice, where: str) -> np.ndarray:
    """Return values (n, 4, length), in the memory order of the file."""
    index = [slice(None)] * len(array.shape)
    index[axes.rows], index[axes.positions] = rows, positions
    values = take(array, tuple(index), where)
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    values = np.transpose(values, (*axes, *others))
    return values.reshape(values.shape[:3]) if others else values
