"""Packed datasets from the training files that others publish: DeepSEA's .mat, Basset's .h5.

What a file is, is told by its content. The splits of several files are put together, so that
train.mat, valid.mat and test.mat make one dataset. A part of the dataset is read, checked and
committed at a time: an import that was stopped goes on where it was, to the same bytes.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from raygenome.datasets import basset_h5, deepsea_mat, writer
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.packed import Dataset
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
    """Make a packed dataset of published training files.

    Args:
        files: DeepSEA's .mat or Basset's .h5, one or several of one kind, each split in one.
        out: the folder to make.
        resume: go on with an unfinished import.
        overwrite: replace what is in `out`.
        progress: is told how far it is.

    Raises:
        UsageError: no file is given, or `resume` and `overwrite` both.
        NoInput: a file cannot be read.
        DataError: a file is of no known kind, damaged, or does not fit the others.
        OutputError: `out` cannot be made, or holds something.
    """
    progress = progress or NoProgress()
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one")
    if not files:
        raise UsageError(f"no file to import; name at least one: {_NEEDED}")
    for place, option in ((out, "--out"), *((file, "a file to import") for file in files)):
        require_local(place, option)
    with ExitStack() as stack:
        opened = [stack.enter_context(_opener(Path(file))) for file in files]
        opened.sort(key=lambda file: SPLITS.index(file.splits[0].split))
        splits = _put_together(opened)
        targets = _targets(opened[0].kind, opened, splits)
        sources = _digests([file.path for file in opened], progress)
        identity = {
            "recipe": opened[0].kind,
            "set of files": [source["sha256"] for source in sources],
        }
        with writer.DatasetWriter(
            out,
            window=splits[0].window,
            targets=targets,
            identity=identity,
            resume=resume,
            overwrite=overwrite,
        ) as made:
            counts = {split.split: _write(split, made, progress) for split in splits}
            return made.finish(recipe=opened[0].kind, sources=sources, options={}, counts=counts)


def _opener(path: Path) -> AbstractContextManager[StoredFile]:
    """Return what opens a file, by its content."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size, at = path.stat().st_size, 512
            is_hdf5 = head.startswith(_HDF5)
            while not is_hdf5 and at < size:  # MATLAB puts a block of 512 bytes in front
                file.seek(at)
                is_hdf5, at = file.read(len(_HDF5)) == _HDF5, at * 2
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
    if is_hdf5:
        return _hdf5_opener(path)
    if head[126:128] in (b"IM", b"MI") and 1 in head[124:126]:
        return deepsea_mat.open_mat(path, v5=True)
    found = f"begins with {head[:8]!r}" if head else "is empty"
    raise DataError(f"{path} is no file of a known kind (it {found}); needed is {_NEEDED}")


def _hdf5_opener(path: Path) -> AbstractContextManager[StoredFile]:
    with open_hdf5(path) as arrays:
        shapes = {name: array.shape for name, array in arrays.items()}
    is_mat, is_basset = (kind.has_arrays(set(shapes)) for kind in (deepsea_mat, basset_h5))
    if is_mat and is_basset:
        raise DataError(
            f"{path} holds both DeepSEA's and Basset's arrays ({listed(shapes)}); "
            "the arrays of one are needed"
        )
    if not (is_mat or is_basset):
        raise DataError(
            f"{path} holds {listed(shapes)}; it needs {deepsea_mat.needed()} (DeepSEA), or "
            f"{basset_h5.needed()} (Basset)"
        )
    return deepsea_mat.open_mat(path, v5=False) if is_mat else basset_h5.open_h5(path)


def _put_together(files: Sequence[StoredFile]) -> list[StoredSplit]:
    """Return the splits of all files in the order of `SPLITS`, none twice, all alike."""
    found: dict[str, tuple[Path, StoredSplit]] = {}
    first = files[0]
    for file in files:
        if file.kind != first.kind:
            raise DataError(
                f"{first.path} is {first.kind} and {file.path} is {file.kind}; "
                "files of one kind are needed"
            )
        for split in file.splits:
            if split.split in found:
                raise DataError(
                    f"{found[split.split][0]} and {file.path} both hold the {split.split} split; "
                    "leave one out"
                )
            found[split.split] = file.path, split
    splits = [found[name] for name in SPLITS if name in found]
    path, like = splits[0]
    for other, split in splits[1:]:
        if (split.window, split.targets) != (like.window, like.targets):
            raise DataError(
                f"{like.split} of {path} has windows of {like.window} bp and {like.targets} "
                f"targets, {split.split} of {other} {split.window} bp and {split.targets}; "
                "all splits must be alike"
            )
    return [split for _, split in splits]


def _targets(kind: str, files: Sequence[StoredFile], splits: Sequence[StoredSplit]) -> list[Target]:
    """Return the targets by the files' labels, or by their number where there are none."""
    named = [file for file in files if file.labels is not None]
    for file in named[1:]:
        if file.labels != named[0].labels:
            raise DataError(
                f"{named[0].path} and {file.path} have different target_labels; "
                "files with the same targets are needed"
            )
    count = splits[0].targets
    if kind == deepsea_mat.KIND:
        return default_targets("deepsea", count)
    labels = (named[0].labels if named else None) or [f"target_{i}" for i in range(count)]
    published = published_targets("basset")
    if labels in ([target.cell for target in published], [target.name for target in published]):
        return published
    names = unique_names([(label, "", "") for label in labels])
    return [Target(i, name, "", "", "", "") for i, name in enumerate(names)]


def _digests(paths: Sequence[Path], progress: Progress) -> list[dict[str, Any]]:
    """Return path and sha256 of each file, in the order given."""
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
    """Commit the parts of a split that are not there yet; return its counts."""
    rows = split.open()
    parts = range(-(-rows.rows // writer.PART_ROWS))
    missing = [part for part in parts if not made.has(split.split, part)]
    before = rows.rows - sum(_span(part, rows.rows)[2] for part in missing)
    progress.begin(f"importing {split.split}", rows.rows, before, unit="windows")
    try:
        for part in missing:
            begin, end, count = _span(part, rows.rows)
            made.write(split.split, part, *rows.read(begin, end))
            before += count
            progress.update(before)
    finally:
        progress.end()
    return dict(rows.counts)


def _span(part: int, rows: int) -> tuple[int, int, int]:
    """Return begin, end and number of a part's rows."""
    begin = part * writer.PART_ROWS
    end = min(begin + writer.PART_ROWS, rows)
    return begin, end, end - begin
