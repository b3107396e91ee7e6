"""A memory-mapped packed dataset, from which any rows can be read as codes and labels.

A row holds four bases per byte, then eight labels per byte. Runs of N are in a separate file. Only
the requested rows are read, and all processes of a machine share the system's file cache.

Axes: N windows, L bases, T targets. Codes are those of `raygenome.genome.sequence`.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise, permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raygenome.datasets.manifest import MANIFEST_FILE, TARGETS_FILE, Manifest, read_manifest
from raygenome.errors import DataError, UsageError
from raygenome.genome.intervals import Regions, Spans
from raygenome.genome.sequence import N_CODE
from raygenome.genome.targets import Target, read_targets
from raygenome.storage.bucket import is_remote
from raygenome.storage.cache import local_folder
from raygenome.storage.files import file_sha256
from raygenome.storage.object_store import open_store

if TYPE_CHECKING:
    import pyarrow as pa

#: The codes of the four bases in a byte, by byte: uint8 (256, 4), first base in the lowest bits.
BASES_OF_BYTE = (np.arange(256, dtype=np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3

#: Rows whose labels are unpacked together.
_UNPACKED = 1 << 13


def base_bytes(window_size: int) -> int:
    """Return how many bytes the bases of a window take."""
    return -(-window_size // 4)


def label_bytes(n_targets: int) -> int:
    """Return how many bytes the labels of a window take."""
    return -(-n_targets // 8)


def pack_bases(codes_NL: np.ndarray) -> np.ndarray:
    """Return codes, uint8 (N, L), as (N, base_bytes(L)); an N is packed as an A."""
    windows, length = codes_NL.shape
    padded = np.zeros((windows, 4 * base_bytes(length)), dtype=np.uint8)
    padded[:, :length] = codes_NL
    padded[padded == N_CODE] = 0
    first, second, third, fourth = np.moveaxis(padded.reshape(windows, -1, 4), 2, 0)
    return first | second << 2 | third << 4 | fourth << 6


def unpack_bases(packed: np.ndarray, window_size: int) -> np.ndarray:
    """Return the codes, uint8 (N, window_size), of packed bases; an N comes back as an A."""
    return BASES_OF_BYTE[packed].reshape(len(packed), 4 * packed.shape[1])[:, :window_size]


def runs_of_n(codes_NL: np.ndarray) -> np.ndarray:
    """Return the runs of N, int64 (runs, 3): row, start, end (half-open), in order."""
    is_n = np.zeros((len(codes_NL), codes_NL.shape[1] + 2), dtype=np.int8)
    is_n[:, 1:-1] = codes_NL == N_CODE
    if not is_n.any():
        return np.empty((0, 3), dtype=np.int64)
    steps = np.diff(is_n, axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return np.column_stack([starts, ends[:, 1]])


def pack_labels(labels_NT: np.ndarray) -> np.ndarray:
    """Return labels, uint8 (N, T), as (N, label_bytes(T)), the first in the lowest bit.

    Raises:
        ValueError: a label is neither 0 nor 1.
    """
    if labels_NT.dtype != np.uint8 or labels_NT.max(initial=0) > 1:
        raise ValueError(f"labels must be 0 or 1 in uint8, not {labels_NT.dtype}")
    return np.packbits(labels_NT, axis=1, bitorder="little")


def unpack_labels(packed: np.ndarray, n_targets: int) -> np.ndarray:
    """Return the labels, uint8 (N, n_targets), of packed labels."""
    return np.unpackbits(packed, axis=1, count=n_targets, bitorder="little")


def count_positives(packed: np.ndarray, n_targets: int) -> np.ndarray:
    """Return the number of positive windows per target, int64 (n_targets,), from packed labels."""
    positives = np.zeros(n_targets, dtype=np.int64)
    for first in range(0, len(packed), _UNPACKED):
        labels = unpack_labels(packed[first : first + _UNPACKED], n_targets)
        positives += labels.sum(axis=0, dtype=np.int64)
    return positives


class Dataset:
    """A packed dataset, in a folder or in an object store.

    From an object store each file is fetched when it is first needed, once for all processes of a
    machine: training reads all rows in random order in every epoch, so they must be on local disk.

    Attributes:
        place: its folder or URL, as the user named it.
        manifest: what dataset.json says.
        targets: one for each label.
    """

    def __init__(self, place: Path | str, manifest: Manifest, targets: list[Target]) -> None:
        self.place = str(place)
        self.manifest = manifest
        self.targets = targets

    @classmethod
    def open(cls, place: Path | str) -> "Dataset":
        """Open the dataset at a place; the sizes of its files are checked, not their content.

        Raises:
            NoInput: there is no dataset, or an unfinished one.
            DataError: a file is missing, or its size differs from the manifest.
        """
        store = open_store(place)
        manifest = read_manifest(store)
        sizes = store.sizes()
        for name, entry in manifest.all_files().items():
            size = sizes.get(name)
            if size != entry["bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise DataError(
                    f"{store.shown(name)} {found}; {MANIFEST_FILE} says {entry['bytes']:,} bytes",
                    "build the dataset again",
                )
        targets = read_targets(_local(place, TARGETS_FILE))
        _require_consistent(store.shown(MANIFEST_FILE), manifest, len(targets))
        return cls(place, manifest, targets)

    @property
    def window_size(self) -> int:
        """Bases per window."""
        return self.manifest.window

    @property
    def digest(self) -> str:
        """The sha256, in hex, of everything that a model can learn from."""
        return self.manifest.digest

    def file(self, name: str) -> Path:
        """Return one of its files on this machine."""
        return _local(self.place, name)

    def split(self, name: str) -> "Split":
        """Return one of the splits, which may have no rows.

        Raises:
            UsageError: there is no split of this name.
        """
        if name not in self.manifest.splits:
            names = ", ".join(self.manifest.splits)
            raise UsageError(f"there is no split {name!r}", f"choose one of {names}")
        return Split(self, name)

    def verify(self) -> None:
        """Read every byte and compare the digests.

        Raises:
            DataError: the digest of a file differs from the manifest.
        """
        for name, entry in self.manifest.all_files().items():
            file = self.file(name)
            found = file_sha256(file)
            if found != entry["sha256"]:
                raise DataError(
                    f"{file} is damaged: its sha256 is {found}, {MANIFEST_FILE} says "
                    f"{entry['sha256']}",
                    "build the dataset again",
                )


class Split:
    """The windows of one split, by row.

    Attributes:
        name: "train", "valid" or "test".
        entry: its entry in the manifest.
        n_rows: number of windows.
        window_size: bases per window.
        n_targets: labels per window.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.name = name
        self.entry = dataset.manifest.splits[name]
        self.n_rows = self.entry.rows
        self.window_size = dataset.window_size
        self.n_targets = len(dataset.targets)
        self._dataset = dataset

    def __reduce__(self) -> tuple:
        # Another process maps the files itself.
        return _reopen, (self._dataset.place, self.name)

    @cached_property
    def records(self) -> np.ndarray:
        """The packed windows: uint8 (n_rows, bytes), bases before labels, mapped read-only."""
        shape = (self.n_rows, base_bytes(self.window_size) + label_bytes(self.n_targets))
        if self.n_rows == 0:
            return np.empty(shape, dtype=np.uint8)
        return np.memmap(self._dataset.file(f"{self.name}.rows"), np.uint8, "r", shape=shape)

    @cached_property
    def n_runs(self) -> np.ndarray:
        """Runs of N: int64 (runs, 3), row, start and end within the window, sorted by row."""
        name = f"{self.name}.ns"
        if self.entry.files.get(name, {"bytes": 0})["bytes"] == 0:
            return np.empty((0, 3), dtype=np.int64)
        return np.memmap(self._dataset.file(name), np.int64, "r").reshape(-1, 3)

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
        """Return the windows of some rows as codes: uint8 (n, window_size)."""
        index = self._index(rows)
        packed = self.records[index, : base_bytes(self.window_size)]
        codes = unpack_bases(packed, self.window_size)
        for row, start, end in self.n_runs_of(index).tolist():
            codes[row, start:end] = N_CODE
        return codes

    def labels(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        """Return the labels of some rows: uint8 (n, n_targets), each 0 or 1."""
        packed = self.records[self._index(rows), base_bytes(self.window_size) :]
        return unpack_labels(packed, self.n_targets)

    def windows(self) -> "pa.Table | None":
        """Return the coordinates of the windows, one row per window; None if they are unknown.

        Columns: contig (as the FASTA spells it), start and end (0-based half-open, of the window,
        which may hang over the contig), negative (whether it lies outside every peak).
        """
        names = (f"{self.name}.windows.parquet", f"{self.name}.sites.parquet")  # format 2, 1
        name = next((name for name in names if name in self.entry.files), None)
        if name is None:
            return None
        import pyarrow.parquet as pq

        return pq.read_table(self._dataset.file(name)).rename_columns(_COLUMNS)

    def negatives(self) -> np.ndarray:
        """Return which rows lie outside every peak: bool (n_rows,), all false if unknown."""
        windows = self.windows()
        if windows is None:
            return np.zeros(self.n_rows, dtype=bool)
        return windows["negative"].to_numpy()

    def positives(self) -> np.ndarray:
        """Return the number of positive windows per target: int64 (n_targets,)."""
        return np.array(self.entry.positives, dtype=np.int64)

    def _index(self, rows: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(self.n_rows))
        return np.asarray(rows, dtype=np.int64)


_COLUMNS = ["contig", "start", "end", "negative"]


def _require_consistent(path: str, manifest: Manifest, n_targets: int) -> None:
    """Refuse a manifest, read from `path`, whose numbers contradict the sizes of its files."""
    record = base_bytes(manifest.window) + label_bytes(n_targets)
    for name, entry in manifest.splits.items():
        size = entry.files.get(f"{name}.rows", {"bytes": 0})["bytes"]
        if entry.rows * record != size or len(entry.positives) != n_targets:
            raise DataError(
                f"{path} says that {name} has {entry.rows:,} windows of {manifest.window} bases "
                f"and {len(entry.positives)} targets, which its files contradict",
                "build the dataset again",
            )


def _local(place: Path | str, name: str) -> Path:
    """Return a file of a place on this machine: the file itself, or a copy in the cache."""
    if is_remote(place):
        return local_folder(str(place), (name,)) / name
    return Path(place) / name


def _reopen(place: str, name: str) -> Split:
    return Dataset.open(place).split(name)


# Leakage: whether two splits hold the same sequence.


def leakage(dataset: Dataset) -> dict[str, int | None]:
    """Return, by pair of splits "test in train", how many windows of the first overlap the second.

    The count is None where the coordinates of one of the two are not known. Splits without rows
    are left out.
    """
    names = [name for name, entry in dataset.manifest.splits.items() if entry.rows]
    windows = {name: _by_contig(dataset.split(name)) for name in names}
    found: dict[str, int | None] = {}
    for one, other in permutations(names, 2):
        here, there = windows[one], windows[other]
        if here is None or there is None:
            found[f"{one} in {other}"] = None
        else:
            regions = Regions.of_spans(there)
            overlaps = (regions.overlaps(contig, *spans) for contig, spans in here.items())
            found[f"{one} in {other}"] = sum(int(each.sum()) for each in overlaps)
    return found


def _by_contig(split: Split) -> dict[str, Spans] | None:
    """Return the windows of a split by contig; None where their coordinates are not known."""
    windows = split.windows()
    if windows is None:
        return None
    contigs = windows["contig"].combine_chunks().dictionary_encode()
    names, codes = contigs.dictionary.to_pylist(), contigs.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    start, end = windows["start"].to_numpy()[order], windows["end"].to_numpy()[order]
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    pairs = zip(names, pairwise(edges.tolist()), strict=True)
    return {name: (start[begin:stop], end[begin:stop]) for name, (begin, stop) in pairs}
