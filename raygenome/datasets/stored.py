"""Opens published training files, and turns the errors of their libraries into readable ones.

The libraries that read HDF5 and MATLAB files raise almost any exception for a damaged file. Here
each becomes one error that names the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from raygenome.datasets.writer import Windows
from raygenome.errors import DataError, NoInput, RaygenomeError, StorageError


class Rows(Protocol):
    """A split of a file, ready to be read in order."""

    n_rows: int
    #: Its counts for the manifest.
    counts: dict[str, Any]

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Windows | None]:
        """Return codes uint8 (n, window_size), labels uint8 (n, n_targets), and coordinates."""


class StoredSplit(NamedTuple):
    """A split of a file, known by its shape only; `open` prepares reading its rows."""

    split: str
    window_size: int
    n_targets: int
    open: Callable[[], Rows]


class StoredFile(NamedTuple):
    """An opened file: its kind ("deepsea-mat" or "basset-h5"), splits and target labels if any."""

    path: Path
    kind: str
    splits: list[StoredSplit]
    labels: list[str] | None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn any exception of a library into one error about `what`, a file or an array in it.

    Raises:
        DataError: it is damaged.
        StorageError: it does not fit in memory.
    """
    try:
        yield
    except RaygenomeError:
        raise
    except MemoryError:
        raise StorageError(f"{what} does not fit in memory", "free some memory") from None
    except Exception as error:  # noqa: BLE001 - a damaged file can raise any exception
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{what} is damaged or incomplete ({why})", "get the file again") from None


@contextmanager
def open_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the arrays at the top of an HDF5 file, `h5py.Dataset`s by name, while it is open.

    Raises:
        NoInput: it does not exist or cannot be read.
        DataError: it is damaged.
    """
    import h5py

    try:
        path.open("rb").close()
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
    with reading(str(path)):
        # Files on shared disks often cannot be locked, and this process only reads.
        file = h5py.File(path, "r", locking=False)
    with file:
        with reading(str(path)):
            found = {name: file.get(name) for name in file}
        yield {name: array for name, array in found.items() if isinstance(array, h5py.Dataset)}


def take(array: Any, index: tuple[slice, ...], where: str) -> np.ndarray:
    """Return a slice of an array, read into memory; `where` is its name in messages."""
    with reading(where):
        return np.asarray(array[index])


def check_numbers(array: Any, where: str) -> None:
    """Refuse an array of text, structs or complex numbers."""
    with reading(where):
        kind = array.dtype
    if kind.kind not in "buif":
        raise DataError(f"{where} holds {kind}; it must hold numbers or bool")


def listed(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the content of a file for a message: at most eight names with their shapes."""
    some = [f"{name} {'x'.join(map(str, shape))}" for name, shape in list(shapes.items())[:8]]
    return ", ".join(some) + (", ..." if len(shapes) > 8 else "") if some else "no arrays"
