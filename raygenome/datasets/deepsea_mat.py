"""DeepSEA's published training files: train.mat, valid.mat, test.mat.

Each holds {split}xdata, one-hot windows with channels A, G, C, T, and {split}data, labels 0/1:

    train.mat             MATLAB v7.3, which is HDF5: (1000, 4, N) and (919, N), because MATLAB
                          reverses axes; read in blocks, so that memory does not grow with N
    valid.mat, test.mat   MATLAB v5: (N, 4, 1000) and (N, 919); this format cannot be read in
                          pieces, so SciPy loads a whole split (2.2 GB for the published test.mat)

The kind of a file and the order of its axes are detected from its content. In the published files
the second half of the rows holds the reverse complements of the first half, in order. Then only the
forward half is kept, because training makes the other strand itself. Every pair is checked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raygenome.datasets.blocks import Axes, label_blocks, window_blocks
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.stored import (
    StoredFile,
    StoredSplit,
    check_numbers,
    listed,
    open_hdf5,
    reading,
)
from raygenome.datasets.writer import Windows
from raygenome.errors import DataError
from raygenome.genome.sequence import reverse_complement

KIND = "deepsea-mat"
CHANNELS = "AGCT"

#: Pairs that decide whether a file is in halves; a difference in a later pair means damage.
_PAIRS_THAT_DECIDE = 100


class Layout(NamedTuple):
    """The axes of the windows, and the axis of rows in the labels."""

    axes: Axes
    label_rows: int


def needed() -> str:
    """Return what a file must hold, for messages."""
    return "trainxdata and traindata, or the same of valid or test"


@contextmanager
def open_mat(path: Path, *, v5: bool) -> Iterator[StoredFile]:
    """Yield one of DeepSEA's files while it is open.

    Args:
        path: the file.
        v5: whether it is in MATLAB's older format, and not HDF5 (v7.3).

    Raises:
        NoInput: it cannot be read.
        DataError: it is damaged, or lacks the arrays, or their shapes contradict each other.
    """
    if v5:
        yield _stored(path, {name: _LazyArray(path, name, *rest) for name, *rest in _v5_list(path)})
        return
    with open_hdf5(path) as arrays:
        yield _stored(path, arrays)


def has_arrays(names: set[str]) -> bool:
    """Return whether a file with arrays of these names is one of DeepSEA's."""
    return any(name in names for split in SPLITS for name in (f"{split}xdata", f"{split}data"))


def layout(windows: tuple[int, ...], labels: tuple[int, ...], where: str) -> Layout:
    """Return which axis is which.

    Rows are the first axis of both arrays or the last of both. Channels are one of the other two
    axes of the windows and have length 4. Windows and labels have the same number of rows.

    Raises:
        DataError: no order of axes fits the shapes, or more than one does.
    """
    fits = []
    if len(windows) == 3 and len(labels) == 2:
        for rows, label_rows in ((0, 0), (2, 1)):
            for channels in {0, 1, 2} - {rows}:
                if windows[channels] == 4 and windows[rows] == labels[label_rows]:
                    axes = Axes(rows, channels, 3 - rows - channels)
                    fits.append(Layout(axes, label_rows))
    if len(fits) == 1 and min(*windows, *labels) > 0:
        return fits[0]
    shapes = f"{'x'.join(map(str, windows))} and {'x'.join(map(str, labels))}"
    needed_shapes = "rows x 4 x bases and rows x targets, or bases x 4 x rows and targets x rows"
    if len(fits) > 1:
        raise DataError(
            f"{where} are {shapes}, which fits more than one order of axes",
            f"give {needed_shapes}, with sizes that differ",
        )
    raise DataError(f"{where} are {shapes}; they must be {needed_shapes}")


class MatRows:
    """The rows of a split; of a split in halves, only the forward ones.

    Args:
        windows: array of windows.
        labels: array of labels.
        order: their axes.
        where: name of the file and split in messages.
    """

    def __init__(self, windows: Any, labels: Any, order: Layout, where: str) -> None:
        self._where = where
        self._streams = [
            (
                window_blocks(windows, order.axes, CHANNELS, f"{where}xdata"),
                label_blocks(labels, order.label_rows, f"{where}data"),
            )
            for _ in range(2)
        ]
        self._total = self.n_rows = windows.shape[order.axes.rows]
        self._halves = self._total % 2 == 0
        if self._halves:
            self.n_rows = self._total // 2
            pairs = min(_PAIRS_THAT_DECIDE, self.n_rows)
            self._halves = len(self._unpaired(0, pairs, *self._stream(0, 0, pairs))) == 0
        if not self._halves:
            self.n_rows = self._total
        self.counts = {"rows_in_file": self._total, "reverse_complement_half": self._halves}

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Windows | None]:
        """Return codes (n, window_size), labels (n, n_targets), None: the files lack coordinates.

        Raises:
            DataError: a row is not one-hot, a label is not 0 or 1, or a row lacks its reverse
                complement in the second half.
        """
        codes, labels = self._stream(0, begin, end)
        if self._halves:
            unpaired = self._unpaired(begin, end, codes, labels)
            if len(unpaired):
                row = begin + int(unpaired[0])
                raise DataError(
                    f"{self._where}xdata is damaged: row {row + self.n_rows} (from 0) is not the "
                    f"reverse complement of row {row} with the same labels, unlike all rows before",
                    "get the file again",
                )
        return codes, labels, None

    def _stream(self, stream: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        windows, labels = self._streams[stream]
        return windows.read(begin, end), labels.read(begin, end)

    def _unpaired(self, begin: int, end: int, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return which rows, counted from `begin`, lack their reverse complement."""
        other, other_labels = self._stream(1, begin + self.n_rows, end + self.n_rows)
        same = (reverse_complement(codes) == other).all(axis=1)
        return np.flatnonzero(~(same & (labels == other_labels).all(axis=1)))


class _LazyArray:
    """A variable of a MATLAB v5 file: its shape, and its values when `load` is called."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...]) -> None:
        self._path, self._name, self.shape = path, name, shape

    def load(self) -> np.ndarray:
        from scipy.io import loadmat

        with reading(f"{self._path}, {self._name}"):
            return np.asarray(loadmat(str(self._path), variable_names=[self._name])[self._name])


def _v5_list(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape of each variable of a MATLAB v5 file."""
    from scipy.io import whosmat

    with reading(str(path)):
        return [(name, shape) for name, shape, _ in whosmat(str(path))]


def _stored(path: Path, arrays: dict[str, Any]) -> StoredFile:
    """Return the splits of a file, from its arrays by name."""
    splits = []
    for split in SPLITS:
        names = (f"{split}xdata", f"{split}data")
        there = [name for name in names if name in arrays]
        if not there:
            continue
        if len(there) == 1:
            raise DataError(
                f"{path} has {there[0]} without {next(n for n in names if n not in there)}; "
                "windows and labels must be in one file",
                "give a file with both",
            )
        splits.append(_split(path, split, arrays[names[0]], arrays[names[1]]))
    if not splits:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise DataError(f"{path} holds {listed(shapes)}; it needs {needed()}")
    return StoredFile(path, KIND, splits, None)


def _split(path: Path, split: str, windows: Any, labels: Any) -> StoredSplit:
    order = layout(windows.shape, labels.shape, f"{path}: {split}xdata and {split}data")

    def load() -> MatRows:
        x, y = (a.load() if isinstance(a, _LazyArray) else a for a in (windows, labels))
        check_numbers(x, f"{path}, {split}xdata")
        check_numbers(y, f"{path}, {split}data")
        return MatRows(x, y, order, f"{path}, {split}")

    n_targets = labels.shape[1 - order.label_rows]
    return StoredSplit(split, windows.shape[order.axes.positions], n_targets, load)
