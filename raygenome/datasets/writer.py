"""Building a packed dataset part by part, so that a killed build goes on where it was.

A part is a stretch of rows of one split. It is committed by its receipt, which is written after its
files, and in the end the parts of each split are joined in order. What a dataset holds does not
depend on how often its build was stopped.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import raygenome
from raygenome.datasets.joining import SITES_SCHEMA, join
from raygenome.datasets.leakage import leakage
from raygenome.datasets.manifest import (
    MANIFEST_FILE,
    SPLITS,
    TARGETS_FILE,
    Manifest,
    read_manifest,
)
from raygenome.datasets.packed import Dataset
from raygenome.datasets.packing import pack_bases, pack_labels, runs_of_n
from raygenome.errors import DataError
from raygenome.genome.targets import Target, check_names, write_targets
from raygenome.storage.files import file_sha256, publish
from raygenome.storage.folder import OutputFolder
from raygenome.storage.store import Kind

#: Rows of a part; the last of a split may have fewer.
PART_ROWS = 16_384


class Sites(NamedTuple):
    """Where windows lie, (n,) each.

    Attributes:
        contig: as the FASTA spells it.
        start: 0-based; it may lie before the contig's.
        background: whether the window is outside every peak.
    """

    contig: Sequence[str]
    start: np.ndarray
    background: np.ndarray


class DatasetWriter(OutputFolder):
    """Makes a packed dataset; to be used in a with statement.

    Args:
        out: the folder to make.
        window: bases a window.
        targets: one for each label.
        identity: plain values that decide the content; an unfinished build of another identity is
            not gone on with.
        resume: go on with an unfinished build in `out`; a finished one is left as it is.
        overwrite: remove a dataset, or an unfinished one, in `out` first.

    Raises:
        OutputError: `out` cannot be made, or holds something.
        DataError: `resume`, and what is there was begun from other input or with other options.
    """

    KIND = Kind(
        "dataset",
        finished=MANIFEST_FILE,
        started=".work/identity.json",
        proof=(MANIFEST_FILE,),
    )

    def __init__(
        self,
        out: Path | str,
        *,
        window: int,
        targets: Sequence[Target],
        identity: Mapping[str, Any],
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(Path(out))
        self.window = window
        self.targets = list(targets)
        check_names([target.name for target in self.targets], source="the dataset")
        labels = [list(target) for target in self.targets]
        self._identity = json.loads(
            json.dumps({**identity, "window": window, "targets": labels, "part": PART_ROWS})
        )
        self._parts = self.work / "parts"
        self._held = contextlib.ExitStack()
        self._receipts: dict[tuple[str, int], dict[str, Any]] = {}
        self._finished = False
        self._overwrite = overwrite
        self._claim(resume=resume, overwrite=overwrite)

    def __enter__(self) -> Self:
        self._held.enter_context(self.lock())
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
            shutil.rmtree(self.work, ignore_errors=True)
        self._held.close()
        if nothing:
            self.store.remove_if_created()

    def has(self, split: str, part: int) -> bool:
        """Return whether a part is committed, by an earlier try or this one."""
        return self._finished or (split, part) in self._receipts

    def rows(self, split: str) -> int:
        """Return how many rows of a split are committed."""
        return sum(entry["rows"] for (name, _), entry in self._receipts.items() if name == split)

    def write(
        self,
        split: str,
        part: int,
        codes: np.ndarray,
        labels: np.ndarray,
        sites: Sites | None = None,
    ) -> None:
        """Commit a part.

        Args:
            split: one of `SPLITS`.
            part: its number, from 0, without gaps in the end.
            codes: uint8 (n, window), n at most PART_ROWS.
            labels: (n, targets), 0 or 1.
            sites: where the windows lie, if that is known; then it must be for the whole split.

        Raises:
            DataError: a label that is neither 0 nor 1.
        """
        if codes.shape != (len(codes), self.window) or len(labels) != len(codes):
            raise ValueError(f"codes {codes.shape} and labels {labels.shape} of one part")
        first = part * PART_ROWS
        packed = pack_labels(_checked_labels(labels, self.targets, f"{split} row", first))
        runs = runs_of_n(codes)
        runs[:, 0] += first
        stem = f"{split}-{part:05d}"
        files = {
            "rows": self._publish_bytes(
                np.hstack([pack_bases(codes), packed]), self._parts / f"{stem}.rows"
            ),
            "ns": self._publish_bytes(runs, self._parts / f"{stem}.ns"),
        }
        if sites is not None:
            files["sites.parquet"] = self._publish_sites(
                sites, self._parts / f"{stem}.sites.parquet"
            )
        receipt = {
            "split": split,
            "part": part,
            "rows": len(codes),
            "background": 0 if sites is None else int(np.sum(sites.background)),
            "with_n": len(np.unique(runs[:, 0])),
            "positives": np.asarray(labels).astype(bool).sum(axis=0).tolist(),
            "files": files,
        }
        self.publish_json(receipt, self._parts / f"{stem}.json")
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
        if self._finished:
            return Dataset.open(self.path)
        targets = len(self.targets)
        splits = {name: join(self, self._parts, name, self._of(name), targets) for name in SPLITS}
        temporary = self.temporary_file(self.path / TARGETS_FILE)
        write_targets(temporary, self.targets)
        manifest = Manifest(
            recipe=recipe,
            window=self.window,
            targets=targets,
            splits=splits,
            files={TARGETS_FILE: publish(temporary, self.path / TARGETS_FILE)},
            sources=sources,
            options=options,
            counts=counts,
            identity=self._identity,
            version=raygenome.__version__,
        )
        _refuse_leakage(Dataset(self.path, manifest, self.targets))
        self.publish_json(manifest.to_json(), self.path / MANIFEST_FILE)
        self._finished = True
        return Dataset.open(self.path)

    def _of(self, split: str) -> list[dict[str, Any]]:
        """Return the receipts of a split in order; a part that is missing is a caller's bug."""
        count = sum(name == split for name, _ in self._receipts)
        return [self._receipts[split, part] for part in range(count)]

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready to be written to, or refuse."""
        self.store.claim(self.KIND, resume=resume, overwrite=overwrite)
        if (self.path / MANIFEST_FILE).exists() and not overwrite:
            self._require_same(read_manifest(self.path).identity)
            self._finished = True

    def _begin(self) -> None:
        """Take up what an earlier try left, or, with `overwrite`, remove it."""
        if self._overwrite:
            self._clear()
        if self._finished:
            return
        self._parts.mkdir(parents=True, exist_ok=True)
        file = self.work / "identity.json"
        before = self.read_json(file, mend="add --overwrite to begin again")
        if before is None:
            self.publish_json(self._identity, file)
        else:
            self._require_same(before)
        self._receipts = self._committed()

    def _require_same(self, before: dict[str, Any]) -> None:
        for key in [*self._identity, *before]:
            if before.get(key) != self._identity.get(key):
                raise DataError(
                    f"{self.path} was begun with another {key}; "
                    "add --overwrite to begin again, or choose another --out"
                )

    def _clear(self) -> None:
        (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        (self.path / TARGETS_FILE).unlink(missing_ok=True)
        for split in SPLITS:
            for kind in ("rows", "ns", "sites.parquet"):
                (self.path / f"{split}.{kind}").unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)
        (self.work / "identity.json").unlink(missing_ok=True)

    def _committed(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the receipts of the parts that are there whole."""
        found = {}
        for path in sorted(self._parts.glob("*.json")):
            receipt = json.loads(path.read_text())
            stem = path.with_suffix("")
            files = {stem.with_suffix(f".{kind}"): f for kind, f in receipt["files"].items()}
            if all(
                file.is_file() and file_sha256(file) == said["sha256"]
                for file, said in files.items()
            ):
                found[receipt["split"], receipt["part"]] = receipt
        return found

    def _publish_bytes(self, values: np.ndarray, final: Path) -> dict[str, Any]:
        temporary = self.temporary_file(final)
        np.ascontiguousarray(values).tofile(temporary)
        return publish(temporary, final)

    def _publish_sites(self, sites: Sites, final: Path) -> dict[str, Any]:
        start = np.asarray(sites.start, dtype=np.int64)
        columns = [pa.array(sites.contig, pa.string()).dictionary_encode(), start]
        columns += [start + self.window, np.asarray(sites.background, dtype=bool)]
        temporary = self.temporary_file(final)
        pq.write_table(pa.table(columns, schema=SITES_SCHEMA), temporary)
        return publish(temporary, final)


def _checked_labels(
    labels: np.ndarray, targets: Sequence[Target], where: str, first: int
) -> np.ndarray:
    """Return labels as uint8; raise DataError at the first that is neither 0 nor 1."""
    if labels.shape[1] != len(targets):
        raise ValueError(f"labels {labels.shape} for {len(targets)} targets")
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row, target = np.argwhere(wrong)[0]
        raise DataError(
            f"the label of {where} {first + row:,}, target {targets[target].name}, is "
            f"{labels[row, target]}; labels must be 0 or 1"
        )
    return labels.astype(np.uint8)


def _refuse_leakage(dataset: Dataset) -> None:
    for pair, count in leakage(dataset).items():
        if count:
            raise DataError(
                f"{count:,} windows overlap across splits ({pair}); the splits need regions that "
                "are apart"
            )
