"""Imports published training files (DeepSEA's .mat, Basset's .h5) as packed datasets.

The kind of a file is detected from its content. The splits of several files are merged, so that
train.mat, valid.mat and test.mat make one dataset. The dataset is read, checked and committed part
by part. So a stopped import can continue, and the result has the same bytes.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from raygenome.datasets import basset_h5, deepsea_mat, writer
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.packed import Dataset, pack_labels
from raygenome.datasets.stored import StoredFile, StoredSplit, listed, open_hdf5
from raygenome.errors import DataError, NoInput, UsageError
from raygenome.genome.targets import Target, unique_names
from raygenome.models import default_targets, published_targets
from raygenome.progress.bars import NoProgress, Progress
from raygenome.storage.bucket import require_local

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NEEDED = "DeepSEA's .mat (MATLAB v5 or v7.3) or Basset's .h5"


def import_files(
    files: Sequence[Path | str],
    *,
    out: Path | str,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Make a packed dataset from published training files.

    Args:
        files: one or several of DeepSEA's .mat or of Basset's .h5; no split may be in two files.
        out: the folder, or the URL of a place in an object store, to write to.
        resume: continue an unfinished import.
        overwrite: replace a dataset in `out`.
        progress: shows the progress of the import.

    Raises:
        UsageError: no file is given, or both `resume` and `overwrite` are.
        NoInput: a file cannot be read.
        DataError: a file is of no known kind, damaged, or contradicts the others.
        OutputError: `out` holds something already or cannot be written to.
    """
    progress = progress or NoProgress()
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other", "give one of them")
    if not files:
        raise UsageError("there is no file to import", f"name at least one: {_NEEDED}")
    for file in files:
        require_local(file, "a file to import")
    with ExitStack() as stack:
        opened = [stack.enter_context(_opener(Path(file))) for file in files]
        opened.sort(key=lambda file: SPLITS.index(file.splits[0].split))
        splits = _merged(opened)
        targets = _targets(opened[0].kind, opened, splits)
        sources = _digests([file.path for file in opened], progress)
        identity = {
            "recipe": opened[0].kind,
            "set of files": [source["sha256"] for source in sources],
        }
        with writer.DatasetWriter(
            out,
            window_size=splits[0].window_size,
            targets=targets,
            identity=identity,
            resume=resume,
            overwrite=overwrite,
        ) as made:
            counts = {split.split: _write(split, made, progress) for split in splits}
            return made.finish(recipe=opened[0].kind, sources=sources, options={}, counts=counts)


def _opener(path: Path) -> AbstractContextManager[StoredFile]:
    """Return the reader for a file, chosen by its content."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size, at = path.stat().st_size, 512
            is_hdf5 = head.startswith(_HDF5)
            while not is_hdf5 and at < size:  # MATLAB writes a block of 512 bytes first
                file.seek(at)
                is_hdf5, at = file.read(len(_HDF5)) == _HDF5, at * 2
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
    if is_hdf5:
        return _hdf5_opener(path)
    if head[126:128] in (b"IM", b"MI") and 1 in head[124:126]:
        return deepsea_mat.open_mat(path, v5=True)
    found = f"starts with {head[:8]!r}" if head else "is empty"
    raise DataError(f"{path} is not a known training file: it {found}", f"give {_NEEDED}")


def _hdf5_opener(path: Path) -> AbstractContextManager[StoredFile]:
    with open_hdf5(path) as arrays:
        shapes = {name: array.shape for name, array in arrays.items()}
    is_mat, is_basset = (kind.has_arrays(set(shapes)) for kind in (deepsea_mat, basset_h5))
    if is_mat and is_basset:
        raise DataError(
            f"{path} holds both DeepSEA's and Basset's arrays ({listed(shapes)})",
            "give a file with the arrays of one of them",
        )
    if not (is_mat or is_basset):
        raise DataError(
            f"{path} holds {listed(shapes)}; it needs {deepsea_mat.needed()} (DeepSEA), or "
            f"{basset_h5.needed()} (Basset)"
        )
    return deepsea_mat.open_mat(path, v5=False) if is_mat else basset_h5.open_h5(path)


def _merged(files: Sequence[StoredFile]) -> list[StoredSplit]:
    """Return the splits of all files in the order of `SPLITS`, none twice, all of one shape."""
    found: dict[str, tuple[Path, StoredSplit]] = {}
    first = files[0]
    for file in files:
        if file.kind != first.kind:
            raise DataError(
                f"{first.path} is {first.kind} and {file.path} is {file.kind}",
                "give files of one kind",
            )
        for split in file.splits:
            if split.split in found:
                raise DataError(
                    f"{found[split.split][0]} and {file.path} both hold the {split.split} split",
                    "leave one of them out",
                )
            found[split.split] = file.path, split
    splits = [found[name] for name in SPLITS if name in found]
    path, like = splits[0]
    for other, split in splits[1:]:
        if (split.window_size, split.n_targets) != (like.window_size, like.n_targets):
            raise DataError(
                f"{like.split} of {path} has windows of {like.window_size} bp and "
                f"{like.n_targets} targets, {split.split} of {other} has {split.window_size} bp "
                f"and {split.n_targets}; all splits must have the same",
                "give files of one dataset",
            )
    return [split for _, split in splits]


def _targets(kind: str, files: Sequence[StoredFile], splits: Sequence[StoredSplit]) -> list[Target]:
    """Return the targets by the files' labels, or by their number if there are none."""
    named = [file for file in files if file.labels is not None]
    for file in named[1:]:
        if file.labels != named[0].labels:
            raise DataError(
                f"{named[0].path} and {file.path} have different target_labels",
                "give files with the same targets",
            )
    count = splits[0].n_targets
    if kind == deepsea_mat.KIND:
        return default_targets("deepsea", count)
    labels = (named[0].labels if named else None) or [f"target_{i}" for i in range(count)]
    published = published_targets("basset")
    if labels in ([target.cell for target in published], [target.name for target in published]):
        return published
    names = unique_names([(label, "", "") for label in labels])
    return [Target(i, name, "", "", "", "") for i, name in enumerate(names)]


def _digests(paths: Sequence[Path], progress: Progress) -> list[dict[str, Any]]:
    """Return the path and sha256 of each file, in the given order."""
    total = sum(path.stat().st_size for path in paths) >> 20
    done, sources = 0, []
    progress.begin("checksums", total, unit="MiB")
    try:
        for path in paths:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(1 << 22):
                    digest.update(piece)
                    done += len(piece)
                    progress.update(min(done >> 20, total))
            sources.append({"path": str(path), "sha256": digest.hexdigest()})
    finally:
        progress.end()
    return sources


def _write(split: StoredSplit, made: writer.DatasetWriter, progress: Progress) -> dict[str, Any]:
    """Commit the parts of a split that are not committed yet; return its counts."""
    rows = split.open()
    n_rows, size = rows.n_rows, writer.PART_ROWS
    ranges = {
        part: (begin, min(begin + size, n_rows))
        for part, begin in enumerate(range(0, n_rows, size))
    }
    missing = [part for part in ranges if not made.has(split.split, part)]
    done = n_rows - sum(end - begin for begin, end in (ranges[part] for part in missing))
    progress.begin(f"importing {split.split}", n_rows, done, unit="windows")
    try:
        for part in missing:
            begin, end = ranges[part]
            codes, labels, windows = rows.read(begin, end)
            made.write(split.split, part, codes, pack_labels(labels), windows)
            done += end - begin
            progress.update(done)
    finally:
        progress.end()
    return dict(rows.counts)
