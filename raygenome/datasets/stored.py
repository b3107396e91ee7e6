"""Files that others publish, opened: the splits in them, and reading without surprises.

The libraries that read HDF5 and MATLAB files raise nearly anything when a file is damaged; all of
it becomes one error here, which names the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from raygenome.datasets.writer import Sites
from raygenome.errors import DataError, NoInput, RaygenomeError, StorageError


class Rows(Protocol):
    """A split of a file, ready to be read in order."""

    rows: int
    #: What is to be said of it in the manifest.
    counts: dict[str, Any]

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, Sites | None]:
        """Return codes uint8 (n, window), labels uint8 (n, targets), and sites where known."""


class StoredSplit(NamedTuple):
    """A split of a file, known by its shape; `open` reads what is needed to know its rows."""

    split: str
    window: int
    targets: int
    open: Callable[[], Rows]


class StoredFile(NamedTuple):
    """An opened file: its kind ("deepsea-mat" or "basset-h5"), splits and target labels if any."""

    path: Path
    kind: str
    splits: list[StoredSplit]
    labels: list[str] | None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what a library raises into one error about `what`, a file or an array of one.

    Raises:
        DataError: it is damaged.
        StorageError: there is not enough memory for it.
    """
    try:
        yield
    except RaygenomeError:
        raise
    except MemoryError:
        raise StorageError(f"{what} needs more memory than there is; free some") from None
    except Exception as error:  # noqa: BLE001 - damage shows itself in every way
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{what} is damaged or was cut short ({why}); get the file again") from None


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
        # Files on shared disks often cannot be locked, and nothing is written.
        file = h5py.File(path, "r", locking=False)
    with file:
        with reading(str(path)):
            found = {name: file.get(name) for name in file}
        yield {name: array for name, array in found.items() if isinstance(array, h5py.Dataset)}


def take(array: Any, index: tuple[slice, ...], where: str) -> np.ndarray:
    """Return a cut of an array, read; `where` is what messages call it."""
    with reading(where):
        return np.asarray(array[index])


def check_numbers(array: Any, where: str) -> None:
    """Refuse an array of text, structs or complex numbers."""
    with reading(where):
        kind = array.dtype
    if kind.kind not in "buif":
        raise DataError(f"{where} holds {kind}; numbers or bool are needed")


def listed(shapes: dict[str, tuple[int, ...]]) -> str:
    """Return what a file holds, for a message: at most eight names with their shapes."""
    some = [f"{name} {'x'.join(map(str, shape))}" for name, shape in list(shapes.items())[:8]]
    return ", ".join(some) + (", ..." if len(shapes) > 8 else "") if some else "no arrays"
