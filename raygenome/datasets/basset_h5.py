"""Basset's training files: HDF5 with {split}_in, {split}_out, target_labels and test_headers.

    {train,valid,test}_in     one-hot windows (N, 4, 1, 600) or (N, 4, 600), channels A, C, G, T;
                              float16 until 2020, bool after
    {train,valid,test}_out    labels (N, targets)
    target_labels             names of the targets
    test_headers              "chr1:100-700(+)" for each row: where the window lies

A window of strand "-" is stored as the reverse complement of those coordinates, and stays so.
Since May 2020, Basset writes windows with scrambled axes: shape (4, length), values laid out as
(length, 4). Such windows are not one-hot along the channels, and the error message explains it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raygenome.datasets.blocks import Axes, label_blocks, window_blocks
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.stored import (
    StoredFile,
    StoredSplit,
    check_numbers,
    listed,
    open_hdf5,
    take,
)
from raygenome.datasets.writer import Windows
from raygenome.errors import DataError

KIND = "basset-h5"
CHANNELS = "ACGT"

_PLACE = re.compile(r"(\S+):(-?[0-9]{1,18})-([0-9]{1,18})(?:\([-+.]\))?")


def needed() -> str:
    """Return what a file must hold, for messages."""
    return "train_in and train_out, or the same of valid or test"


def has_arrays(names: set[str]) -> bool:
    """Return whether a file with arrays of these names is Basset's."""
    return any(name in names for split in SPLITS for name in (f"{split}_in", f"{split}_out"))


@contextmanager
def open_h5(path: Path) -> Iterator[StoredFile]:
    """Yield a file while it is open.

    Raises:
        NoInput: it cannot be read.
        DataError: it is damaged, or lacks the arrays, or their shapes contradict each other.
    """
    with open_hdf5(path) as arrays:
        splits = [_split(path, split, arrays) for split in SPLITS if has_split(arrays, split, path)]
        if not splits:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise DataError(f"{path} holds {listed(shapes)}; it needs {needed()}")
        yield StoredFile(path, KIND, splits, _target_labels(path, arrays, splits[0].n_targets))


def has_split(arrays: dict[str, Any], split: str, path: Path) -> bool:
    """Return whether the windows and labels of a split are there.

    Raises:
        DataError: only one of the two is there.
    """
    names = (f"{split}_in", f"{split}_out")
    there = [name for name in names if name in arrays]
    if len(there) == 1:
        raise DataError(
            f"{path} has {there[0]} without {next(n for n in names if n not in there)}; "
            "windows and labels must be in one file",
            "give a file with both",
        )
    return bool(there)


class BassetRows:
    """The rows of a split, as they are stored.

    Args:
        windows: (N, 4, 1, L) or (N, 4, L).
        labels: (N, T).
        headers: (N,) of "contig:start-end(strand)", or None.
        where: name of the file and split in messages.
    """

    def __init__(self, windows: Any, labels: Any, headers: Any, where: str) -> None:
        axes = Axes(0, 1, windows.ndim - 1)
        self._windows = window_blocks(windows, axes, CHANNELS, f"{where}_in", hint=_scrambled)
        self._labels = label_blocks(labels, 0, f"{where}_out")
        self._window_size = windows.shape[-1]
        self._where = f"{where}_headers"
        first = () if headers is None else take(headers, (slice(0, 1),), self._where)
        self._headers = headers if any(map(_is_place, first)) else None
        self.n_rows = windows.shape[0]
        self.counts = {"rows_in_file": self.n_rows, "coordinates": self._headers is not None}

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Windows | None]:
        """Return codes (n, window_size), labels (n, n_targets), and where the headers place them.

        Raises:
            DataError: a row is not one-hot, a label is not 0 or 1, or a header is not an interval
                of the window's length.
        """
        places = None if self._headers is None else self._places(begin, end)
        return self._windows.read(begin, end), self._labels.read(begin, end), places

    def _places(self, begin: int, end: int) -> Windows:
        contigs, starts = [], []
        headers = take(self._headers, (slice(begin, end),), self._where)
        for row, header in enumerate(headers, start=begin):
            place = _PLACE.fullmatch(_text(header))
            if place is None or int(place[3]) - int(place[2]) != self._window_size:
                raise DataError(
                    f"{self._where}: row {row} (from 0) is {_text(header)[:60]!r}; it must be "
                    f"contig:start-end(strand) of {self._window_size} bases, as row 0 is"
                )
            contigs.append(place[1])
            starts.append(int(place[2]))
        negative = np.zeros(len(starts), dtype=bool)
        return Windows(contigs, np.array(starts, dtype=np.int64), negative)


def _split(path: Path, split: str, arrays: dict[str, Any]) -> StoredSplit:
    windows, labels = arrays[f"{split}_in"], arrays[f"{split}_out"]
    headers = arrays.get(f"{split}_headers")
    where = f"{path}: {split}"
    shape = windows.shape
    is_window = len(shape) == 3 or (len(shape) == 4 and shape[2] == 1)
    if not is_window or shape[1] != 4 or labels.ndim != 2 or shape[0] != labels.shape[0]:
        raise DataError(
            f"{where}_in and {split}_out are {_by(shape)} and {_by(labels.shape)}; they must be "
            "rows x 4 x 1 x bases (or rows x 4 x bases) and rows x targets"
        )
    if min(*shape, *labels.shape) == 0:
        raise DataError(
            f"{where}_in and {split}_out are empty ({_by(shape)} and {_by(labels.shape)})",
            "leave the split out of the file",
        )
    check_numbers(windows, f"{where}_in")
    check_numbers(labels, f"{where}_out")
    if headers is not None and headers.shape != shape[:1]:
        raise DataError(
            f"{where}_headers has shape {_by(headers.shape)}; it must have one header for each of "
            f"the {shape[0]} rows"
        )
    return StoredSplit(
        split, shape[-1], labels.shape[1], lambda: BassetRows(windows, labels, headers, where)
    )


def _target_labels(path: Path, arrays: dict[str, Any], n_targets: int) -> list[str] | None:
    if "target_labels" not in arrays:
        return None
    found = take(arrays["target_labels"], (), f"{path}: target_labels")
    labels = [_text(label) for label in np.ravel(found)]
    if len(labels) != n_targets:
        raise DataError(
            f"{path} has {len(labels)} target_labels for {n_targets} targets; it must have one each"
        )
    return labels


def _is_place(header: object) -> bool:
    return _PLACE.fullmatch(_text(header)) is not None


def _text(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip().lstrip(">")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single value"


def _scrambled(values: np.ndarray) -> str:
    """Return what to do about a row that is not one-hot because of scrambled axes; else ""."""
    turned = values.reshape(-1, 4)
    if np.isin(turned, (0, 1)).all() and (turned.sum(axis=1) <= 1).all():
        return (
            "write the file again as rows x 4 x 1 x bases (the values are one-hot as bases x 4: "
            "Basset scrambles the axes since May 2020)"
        )
    return ""
