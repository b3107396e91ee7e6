"""A packed dataset, memory-mapped: any rows of it, in any order, as codes and labels.

Nothing is read but the records that are asked for; many processes share what the system caches.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raygenome.datasets.manifest import MANIFEST_FILE, TARGETS_FILE, Manifest, read_manifest
from raygenome.datasets.packing import (
    packed_bases,
    packed_labels,
    unpack_bases,
    unpack_labels,
)
from raygenome.errors import DataError, UsageError
from raygenome.genome.sequence import N_CODE
from raygenome.genome.targets import Target, read_targets
from raygenome.storage.bucket import require_local
from raygenome.storage.files import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa


class Dataset:
    """A packed dataset.

    Attributes:
        path: its folder.
        manifest: what dataset.json says.
        targets: one for each label.
    """

    def __init__(self, path: Path, manifest: Manifest, targets: list[Target]) -> None:
        self.path = path
        self.manifest = manifest
        self.targets = targets

    @classmethod
    def open(cls, path: Path | str) -> "Dataset":
        """Open the dataset in a folder; the sizes of its files are checked, not their content.

        Raises:
            UsageError: it is a URL.
            NoInput: there is none.
            DataError: a file is missing, or of another size than the manifest says.
        """
        require_local(path, "the dataset")
        path = Path(path)
        manifest = read_manifest(path)
        for name, entry in manifest.all_files().items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise DataError(
                    f"{file} {found}; {MANIFEST_FILE} says {entry['bytes']:,} bytes; "
                    "build the dataset again"
                )
        targets = read_targets(path / TARGETS_FILE)
        _require_consistent(path / MANIFEST_FILE, manifest, len(targets))
        return cls(path, manifest, targets)

    @property
    def window(self) -> int:
        """Bases a window."""
        return self.manifest.window

    @property
    def digest(self) -> str:
        """The sha256, in hex, of all that can be learnt from it."""
        return self.manifest.digest

    def split(self, name: str) -> "Split":
        """Return one of the splits, which may have no rows.

        Raises:
            UsageError: there is no split of this name.
        """
        if name not in self.manifest.splits:
            names = ", ".join(self.manifest.splits)
            raise UsageError(f"no split is called {name!r}; there are: {names}")
        return Split(self, name)

    def verify(self) -> None:
        """Read every byte.

        Raises:
            DataError: a file is not what the manifest says by its digest.
        """
        for name, entry in self.manifest.all_files().items():
            found = file_sha256(self.path / name)
            if found != entry["sha256"]:
                raise DataError(
                    f"{self.path / name} has sha256 {found}; {MANIFEST_FILE} says "
                    f"{entry['sha256']}; the file is damaged: build the dataset again"
                )


class Split:
    """The windows of one split, by row.

    Attributes:
        name: "train", "valid" or "test".
        rows: windows; window: bases of each; targets: labels of each.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.name = name
        self.entry = dataset.manifest.splits[name]
        self.rows = self.entry.rows
        self.window = dataset.window
        self.targets = len(dataset.targets)
        self._folder = dataset.path

    def __reduce__(self) -> tuple:
        # Another process maps the files itself.
        return _reopen, (self._folder, self.name)

    @cached_property
    def records(self) -> np.ndarray:
        """The packed windows: uint8 (rows, bytes), bases in front of labels, mapped read-only."""
        shape = (self.rows, packed_bases(self.window) + packed_labels(self.targets))
        if self.rows == 0:
            return np.empty(shape, dtype=np.uint8)
        return np.memmap(self._folder / f"{self.name}.rows", np.uint8, "r", shape=shape)

    @cached_property
    def n_runs(self) -> np.ndarray:
        """Runs of N: int64 (runs, 3), row, start and end within the window, sorted by row."""
        file = self._folder / f"{self.name}.ns"
        if f"{self.name}.ns" not in self.entry.files or file.stat().st_size == 0:
            return np.empty((0, 3), dtype=np.int64)
        return np.memmap(file, np.int64, "r").reshape(-1, 3)

    def n_runs_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the runs of N of some rows: int64 (runs, 3), the first column indexing `rows`."""
        keys = self.n_runs[:, 0]
        first = np.searchsorted(keys, rows, side="left")
        count = np.searchsorted(keys, rows, side="right") - first
        index = np.repeat(np.arange(len(rows)), count)
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        found = self.n_runs[np.repeat(first, count) + within].copy()
        found[:, 0] = index
        return found

    def codes(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        """Return the windows of some rows as codes: uint8 (n, window)."""
        index = self._index(rows)
        codes = unpack_bases(self.records[index, : packed_bases(self.window)], self.window)
        for row, start, end in self.n_runs_of(index).tolist():
            codes[row, start:end] = N_CODE
        return codes

    def labels(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        """Return the labels of some rows: uint8 (n, targets), each 0 or 1."""
        return unpack_labels(
            self.records[self._index(rows), packed_bases(self.window) :], self.targets
        )

    def sites(self) -> "pa.Table | None":
        """Return where the windows lie, a row each, or None where that is not known.

        Columns: contig (as the FASTA spells it), start and end (0-based half-open, of the window,
        which may hang over the contig), background (whether it is outside every peak).
        """
        name = f"{self.name}.sites.parquet"
        if name not in self.entry.files:
            return None
        import pyarrow.parquet as pq

        return pq.read_table(self._folder / name)

    def background(self) -> np.ndarray:
        """Return which rows are background: bool (rows,); none where sites are not known."""
        sites = self.sites()
        if sites is None:
            return np.zeros(self.rows, dtype=bool)
        return sites["background"].to_numpy()

    def positives(self) -> np.ndarray:
        """Return the number of positive windows by target: int64 (targets,)."""
        return np.array(self.entry.positives, dtype=np.int64)

    def _index(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(self.rows))
        return np.asarray(rows, dtype=np.int64)


def _require_consistent(path: Path, manifest: Manifest, targets: int) -> None:
    """Refuse a manifest, read from `path`, that says of its rows what its files are not."""
    record = packed_bases(manifest.window) + packed_labels(targets)
    for name, entry in manifest.splits.items():
        there = entry.files.get(f"{name}.rows", {"bytes": 0})["bytes"]
        if entry.rows * record != there or len(entry.positives) != targets:
            raise DataError(
                f"{path} says {entry.rows:,} windows of {manifest.window} bases and "
                f"{len(entry.positives)} targets of {name}, and its files have others; "
                "build the dataset again"
            )


def _reopen(folder: Path, name: str) -> Split:
    return Dataset.open(folder).split(name)
