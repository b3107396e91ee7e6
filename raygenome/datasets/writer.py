"""Writes a packed dataset part by part, so that a killed build can continue.

A part is a range of rows of one split. It is committed by its receipt, which is written after its
files. In the end the parts of each split are joined in order, because the loader maps one file per
split. The content of a dataset does not depend on how often its build was stopped.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import raygenome
from raygenome.datasets.manifest import (
    FORMAT,
    MANIFEST_FILE,
    SPLITS,
    TARGETS_FILE,
    Manifest,
    SplitEntry,
    read_manifest,
)
from raygenome.datasets.packed import (
    Dataset,
    count_positives,
    label_bytes,
    leakage,
    pack_bases,
    runs_of_n,
)
from raygenome.errors import DataError, StorageError
from raygenome.genome.targets import Target, check_names, write_targets
from raygenome.storage.object_store import open_store
from raygenome.storage.store import Kind, Store

#: Rows per part; the last part of a split may have fewer.
PART_ROWS = 16_384

#: Columns of a split's windows, see `packed.Split.windows`.
WINDOWS_SCHEMA = pa.schema(
    [
        ("contig", pa.dictionary(pa.int32(), pa.string())),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("negative", pa.bool_()),
    ]
)

_IDENTITY = ".work/identity.json"
_PARTS = ".work/parts"
#: A finished dataset has no `.work/`, so the manifest proves that it is one.
DATASET = Kind("dataset", finished=MANIFEST_FILE, started=_IDENTITY, proof=(MANIFEST_FILE,))
_PIECE = 1 << 22


class Windows(NamedTuple):
    """The coordinates of windows, (n,) each.

    Attributes:
        contig: as the FASTA spells it.
        start: 0-based; it may lie before the contig's first base.
        negative: whether the window lies outside every peak.
    """

    contig: Sequence[str]
    start: np.ndarray
    negative: np.ndarray


class DatasetWriter:
    """Writes a packed dataset; to be used in a with statement.

    Args:
        out: the folder, or the URL of a place in an object store, to write to.
        window_size: bases per window.
        targets: one for each label.
        identity: plain values that determine the content; an unfinished build is continued only
            if its identity is the same.
        resume: continue an unfinished build in `out`; a finished one is left as it is.
        overwrite: first remove a dataset, or an unfinished one, in `out`.

    Raises:
        OutputError: `out` cannot be written to, or is not empty.
        DataError: `resume` is given, and the build in `out` was started from other input or with
            other options.
    """

    def __init__(
        self,
        out: Path | str,
        *,
        window_size: int,
        targets: Sequence[Target],
        identity: Mapping[str, Any],
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.store = open_store(out)
        self.window_size = window_size
        self.targets = list(targets)
        check_names([target.name for target in self.targets], source="the dataset")
        labels = [list(target) for target in self.targets]
        self._identity = json.loads(
            json.dumps({**identity, "window": window_size, "targets": labels, "part": PART_ROWS})
        )
        self._held = contextlib.ExitStack()
        self._receipts: dict[tuple[str, int], dict[str, Any]] = {}
        self._finished = False
        self._overwrite = overwrite
        self._claim(resume=resume, overwrite=overwrite)

    def __enter__(self) -> Self:
        self._held.enter_context(self.store.lock(DATASET))
        try:
            self._begin()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        nothing = kind is not None and not self._receipts and not self._finished
        if nothing or self._finished:
            with contextlib.suppress(
                OSError, StorageError
            ):  # the dataset is complete even if this fails
                self.store.remove_working()
        self._held.close()
        self.store.close()
        if nothing:
            self.store.remove_if_created()

    @property
    def finished(self) -> bool:
        """Whether an earlier build finished the dataset."""
        return self._finished

    def has(self, split: str, part: int) -> bool:
        """Return whether a part is committed, by this process or an earlier one."""
        return self._finished or (split, part) in self._receipts

    def write(
        self,
        split: str,
        part: int,
        codes: np.ndarray,
        labels: np.ndarray,
        windows: Windows | None = None,
    ) -> None:
        """Commit a part.

        Args:
            split: one of `SPLITS`.
            part: its number, from 0; in the end there must be no gaps.
            codes: uint8 (n, window_size), n at most PART_ROWS.
            labels: uint8 (n, bytes), as `packed.pack_labels` packs them.
            windows: the coordinates, if known; then they must be known for the whole split.
        """
        width = label_bytes(len(self.targets))
        if codes.shape != (len(codes), self.window_size) or labels.shape != (len(codes), width):
            raise ValueError(f"codes {codes.shape} and packed labels {labels.shape} of one part")
        runs = runs_of_n(codes)
        runs[:, 0] += part * PART_ROWS
        stem = f"{_PARTS}/{split}-{part:05d}"
        files = {
            "rows": self._publish_bytes(np.hstack([pack_bases(codes), labels]), f"{stem}.rows"),
            "ns": self._publish_bytes(runs, f"{stem}.ns"),
        }
        if windows is not None:
            files["windows.parquet"] = self._publish_windows(windows, f"{stem}.windows.parquet")
        receipt = {
            "split": split,
            "part": part,
            "rows": len(codes),
            "negatives": 0 if windows is None else int(np.sum(windows.negative)),
            "with_n": len(np.unique(runs[:, 0])),
            "positives": count_positives(labels, len(self.targets)).tolist(),
            "files": files,
        }
        self.store.publish_json(receipt, f"{stem}.json")
        self._receipts[split, part] = receipt

    def finish(
        self,
        *,
        recipe: str,
        sources: list[dict[str, Any]],
        options: dict[str, Any],
        counts: dict[str, Any],
    ) -> Dataset:
        """Join the parts, check that no window is in two splits, and write the manifest.

        Raises:
            DataError: windows of one split overlap windows of another.
        """
        if not self._finished:
            splits = {name: self._join(name) for name in SPLITS}
            temporary = self.store.temporary_file(TARGETS_FILE)
            write_targets(temporary, self.targets)
            manifest = Manifest(
                recipe=recipe,
                window=self.window_size,
                targets=len(self.targets),
                splits=splits,
                files={TARGETS_FILE: self.store.publish(temporary, TARGETS_FILE)},
                sources=sources,
                options=options,
                counts=counts,
                identity=self._identity,
                version=raygenome.__version__,
            )
            _refuse_leakage(Dataset(self.store.source, manifest, self.targets))
            self.store.publish_json(manifest.to_json(), MANIFEST_FILE)
            self._finished = True
        return Dataset.open(self.store.source)

    def _join(self, split: str) -> SplitEntry:
        """Publish the files of one split; return its entry in the manifest."""
        count = sum(name == split for name, _ in self._receipts)
        receipts = [
            self._receipts[split, part] for part in range(count)
        ]  # a gap would be a bug in this program
        if not receipts:
            return SplitEntry(positives=[0] * len(self.targets))
        files = {}
        for kind in receipts[0]["files"]:
            final = f"{split}.{kind}"
            parts = [f"{_PARTS}/{split}-{part:05d}.{kind}" for part in range(count)]
            temporary = self.store.temporary_file(final)
            join = _join_tables if kind == "windows.parquet" else _join_bytes
            join(self.store, parts, temporary)
            files[final] = self.store.publish(temporary, final)
        return SplitEntry(
            rows=sum(receipt["rows"] for receipt in receipts),
            negatives=sum(receipt["negatives"] for receipt in receipts),
            with_n=sum(receipt["with_n"] for receipt in receipts),
            positives=np.sum([receipt["positives"] for receipt in receipts], axis=0).tolist(),
            files=files,
        )

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        """Check that `out` may be written to; existing files stay for now."""
        self.store.claim(DATASET, resume=resume, overwrite=overwrite)
        if self.store.exists(MANIFEST_FILE) and not overwrite:
            self._require_same(read_manifest(self.store).identity, self._identity)
            self._finished = True

    def _begin(self) -> None:
        """Take over the committed parts of an earlier build, or remove them with `overwrite`."""
        if self._overwrite:
            self._clear()
        if self._finished:
            return
        started = {"format": FORMAT, **self._identity}
        before = self.store.read_json(_IDENTITY, do="add --overwrite to start again")
        if before is None:
            self.store.publish_json(started, _IDENTITY)
        else:
            self._require_same(before, started)
        self._receipts = self._committed()

    def _require_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for key in [*now, *before]:
            old, new = before.get(key), now.get(key)
            if old != new:
                values = f" ({old!r}, now {new!r})"
                raise DataError(
                    f"{self.store.place} was started with another {key}"
                    + (values if len(values) < 60 else ""),
                    "add --overwrite to start again, or choose another --out",
                )

    def _clear(self) -> None:
        names = [f"{split}.{kind}" for split in SPLITS for kind in ("rows", "ns")]
        names += [f"{split}.{kind}.parquet" for split in SPLITS for kind in ("windows", "sites")]
        self.store.remove(MANIFEST_FILE, TARGETS_FILE, *names, _PARTS, _IDENTITY)

    def _committed(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the receipts of the parts whose files all exist and are undamaged."""
        found = {}
        sizes = self.store.sizes(_PARTS)
        for name in sorted(name for name in sizes if name.endswith(".json")):
            receipt = json.loads(self.store.read(name))
            stem = name.removesuffix(".json")
            files = {f"{stem}.{kind}": entry for kind, entry in receipt["files"].items()}
            if all(
                self.store.is_whole({"path": file, **entry}, sizes) for file, entry in files.items()
            ):
                found[receipt["split"], receipt["part"]] = receipt
        return found

    def _publish_bytes(self, values: np.ndarray, name: str) -> dict[str, Any]:
        temporary = self.store.temporary_file(name)
        np.ascontiguousarray(values).tofile(temporary)
        return self.store.publish(temporary, name)

    def _publish_windows(self, windows: Windows, name: str) -> dict[str, Any]:
        start = np.asarray(windows.start, dtype=np.int64)
        columns = [pa.array(windows.contig, pa.string()).dictionary_encode(), start]
        columns += [start + self.window_size, np.asarray(windows.negative, dtype=bool)]
        temporary = self.store.temporary_file(name)
        pq.write_table(pa.table(columns, schema=WINDOWS_SCHEMA), temporary)
        return self.store.publish(temporary, name)


def _join_bytes(store: Store, parts: Sequence[str], joined: Path) -> None:
    with joined.open("wb") as out:
        for part in parts:
            with store.open(part) as file:
                while piece := file.read(_PIECE):
                    out.write(piece)


def _join_tables(store: Store, parts: Sequence[str], joined: Path) -> None:
    with pq.ParquetWriter(joined, WINDOWS_SCHEMA, compression="zstd") as out:
        for part in parts:
            with store.open(part) as file:
                out.write_table(pq.read_table(file).cast(WINDOWS_SCHEMA))


def _refuse_leakage(dataset: Dataset) -> None:
    for pair, count in leakage(dataset).items():
        if count:
            raise DataError(
                f"{count:,} windows overlap across splits ({pair})",
                "give the splits regions that do not touch",
            )
