"""DeepSEA's published training files: train.mat, valid.mat, test.mat.

Each holds {split}xdata, one-hot windows with channels A, G, C, T, and {split}data, labels 0/1:

    train.mat             MATLAB v7.3, which is HDF5: (1000, 4, N) and (919, N), MATLAB's axes
                          turned round; read in blocks, so that memory is flat
    valid.mat, test.mat   MATLAB v5: (N, 4, 1000) and (N, 919); the format cannot be read in
                          pieces, so SciPy loads a split whole (2.2 GB for the published test.mat)

Which kind a file is, and which way its axes run, is told by content. In the published files the
second half of the rows is the reverse complements of the first half, in order: then only the
forward half is kept, for the other strand is made when it is needed. Every pair is checked.
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
from raygenome.datasets.writer import Sites
from raygenome.errors import DataError
from raygenome.genome.sequence import reverse_complement

KIND = "deepsea-mat"
CHANNELS = "AGCT"

#: A file whose halves differ within so many pairs is not in halves; later it is damage.
_TELLING = 100


class Layout(NamedTuple):
    """Axes of the windows, and the labels' axis of rows."""

    axes: Axes
    label_rows: int


def needed() -> str:
    """Return what a file must hold, for messages."""
    return "trainxdata and traindata, or the same of valid or test"


@contextmanager
def open_mat(path: Path, *, v5: bool) -> Iterator[StoredFile]:
    """Yield a file of the bundle while it is open.

    Args:
        path: the file.
        v5: whether it is MATLAB's older format; HDF5 (v7.3) else.

    Raises:
        NoInput: it cannot be read.
        DataError: it is damaged, lacks the arrays, or their shapes do not fit each other.
    """
    if v5:
        yield _stored(path, {name: _LazyArray(path, name, *rest) for name, *rest in _v5_list(path)})
        return
    with open_hdf5(path) as arrays:
        yield _stored(path, arrays)


def has_arrays(names: set[str]) -> bool:
    """Tell whether a file with arrays of these names is of the bundle."""
    return any(name in names for split in SPLITS for name in (f"{split}xdata", f"{split}data"))


def layout(windows: tuple[int, ...], labels: tuple[int, ...], where: str) -> Layout:
    """Return which axis is which.

    Rows are the first axis of both arrays or the last of both, channels the axis of length 4 that
    is left with another, and rows of windows and labels are as many.

    Raises:
        DataError: no reading of the shapes fits, or more than one.
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
            f"{where} are {shapes}, which could be read with more than one order of axes; "
            f"needed are {needed_shapes}, with sizes that tell them apart"
        )
    raise DataError(f"{where} are {shapes}; needed are {needed_shapes}")


class MatRows:
    """A split's rows; of a split in halves, the forward ones.

    Args:
        windows: array of windows.
        labels: array of labels.
        order: their axes.
        where: what messages call the file and split.
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
        self._total = self.rows = windows.shape[order.axes.rows]
        self._halves = self._total % 2 == 0
        if self._halves:
            self.rows = self._total // 2
            pairs = min(_TELLING, self.rows)
            self._halves = len(self._unlike(0, pairs, *self._stream(0, 0, pairs))) == 0
        if not self._halves:
            self.rows = self._total
        self.counts = {"rows_in_file": self._total, "reverse_complement_half": self._halves}

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Sites | None]:
        """Return codes (n, window), labels (n, targets), no sites: the files have none.

        Raises:
            DataError: a row is not one-hot, a label not 0 or 1, or the halves stop being alike.
        """
        codes, labels = self._stream(0, begin, end)
        if self._halves:
            unlike = self._unlike(begin, end, codes, labels)
            if len(unlike):
                row = begin + int(unlike[0])
                raise DataError(
                    f"{self._where}xdata: row {row + self.rows} (from 0) is not the reverse "
                    f"complement of row {row} with its labels, as all rows before it are of "
                    "theirs; the file is damaged: get it again"
                )
        return codes, labels, None

    def _stream(self, stream: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        windows, labels = self._streams[stream]
        return windows.read(begin, end), labels.read(begin, end)

    def _unlike(self, begin: int, end: int, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return which of the rows, from `begin`, do not have their reverse complement."""
        other, other_labels = self._stream(1, begin + self.rows, end + self.rows)
        same = (reverse_complement(codes) == other).all(axis=1)
        return np.flatnonzero(~(same & (labels == other_labels).all(axis=1)))


class _LazyArray:
    """A variable of a MATLAB v5 file: its shape; its values when `load` asks for them."""

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
    """Return the splits of a file from its arrays, by name."""
    splits = []
    for split in SPLITS:
        names = (f"{split}xdata", f"{split}data")
        there = [name for name in names if name in arrays]
        if not there:
            continue
        if len(there) == 1:
            raise DataError(
                f"{path} has {there[0]} without {next(n for n in names if n not in there)}; "
                "windows and labels are needed in one file"
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

    targets = labels.shape[1 - order.label_rows]
    return StoredSplit(split, windows.shape[order.axes.positions], targets, load)
