"""Builds a dataset from a FASTA and peak files, by one of the two published recipes.

First the windows of the whole genome are found, contig by contig, and kept in one temporary file
per split. Then their sequence is fetched and written, part by part. So memory does not grow with
the number of windows, errors in the input are reported before anything is written, and a killed
build continues after the last committed part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raygenome.cluster.compute import require_choice
from raygenome.datasets import writer
from raygenome.datasets.find_windows import RECIPES, FoundWindows, WindowPlan, find_windows
from raygenome.datasets.manifest import SPLITS
from raygenome.datasets.packed import Dataset
from raygenome.datasets.peaks import read_table
from raygenome.datasets.splits import Excluded, Splits, as_json
from raygenome.datasets.windows_deepsea import resolve_keep
from raygenome.errors import UsageError
from raygenome.genome.fasta import Reference
from raygenome.genome.windows import WindowSpec, reference_windows
from raygenome.progress.bars import NoProgress, Progress
from raygenome.storage.bucket import require_local
from raygenome.storage.files import file_sha256

#: Windows that are fetched together; few, because the sequence between them is read as well.
_FETCHED = 256


def build(
    recipe: str,
    *,
    fasta: Path | str,
    peaks: Path | str,
    out: Path | str,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    exclude: Sequence[str] = (),
    negatives: int = 0,
    seed: int = 0,
    keep: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Build a packed dataset.

    Args:
        recipe: "basset" or "deepsea".
        fasta: the genome.
        peaks: the table of peak files, see `peaks`.
        out: the folder, or the URL of a place in an object store, to write to.
        valid: regions or contigs whose windows are for validation.
        test: regions or contigs whose windows are for the test; all other windows are for training.
        exclude: regions or contigs to leave out; a contig may occur in the peak files only.
        negatives: how many windows outside every peak to add, with no label set.
        seed: seed of the random choice of negatives.
        keep: which bins DeepSEA's recipe keeps, see `windows_deepsea.KEEP`.
        resume: continue a build that was stopped.
        overwrite: replace a dataset in `out`, after the input has been checked.
        progress: shows the progress of the build.

    Raises:
        UsageError: an option that cannot be used, `resume` and `overwrite` both, or --valid and
            --test overlap.
        DataError: the input is wrong, a split is empty, a target has no positive, or `resume` is
            given with other input than before.
        NoInput: a file does not exist.
        OutputError: `out` holds something already or cannot be written to.
    """
    require_choice("recipe", recipe, RECIPES)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other", "give one of them")
    if negatives < 0 or seed < 0:
        raise UsageError(f"--negatives {negatives} and --seed {seed}: both must be 0 or larger")
    if recipe != "deepsea" and keep != "auto":
        raise UsageError(
            f"--keep {keep} is for the recipe deepsea; {recipe} keeps every peak", "leave it out"
        )
    for place, option in ((fasta, "--fasta"), (peaks, "--peaks")):
        require_local(place, option)
    table = read_table(Path(peaks))
    reference = Reference.open(fasta)
    try:
        plan = WindowPlan(
            recipe=recipe,
            reference=reference,
            table=table,
            splits=Splits(valid, test, reference.contigs),
            excluded=Excluded(exclude, reference.contigs),
            keep=resolve_keep(table.targets, keep),
            negatives=negatives,
            seed=seed,
        )
        return _build(plan, Path(fasta), out, resume, overwrite, progress or NoProgress())
    finally:
        reference.close()


class _Described(NamedTuple):
    """The fields of the manifest about the origin of a dataset."""

    options: dict[str, Any]
    sources: list[dict[str, Any]]
    identity: dict[str, Any]


def _build(
    plan: WindowPlan,
    fasta: Path,
    out: Path | str,
    resume: bool,
    overwrite: bool,
    progress: Progress,
) -> Dataset:
    described = _describe(plan, fasta)

    def writing(**how: bool) -> writer.DatasetWriter:
        return writer.DatasetWriter(
            out,
            window_size=plan.window_size,
            targets=plan.table.targets,
            identity=described.identity,
            **how,
        )

    if overwrite:  # this clears `out`, so the input is checked first
        with find_windows(plan, progress) as found, writing(overwrite=True) as to:
            return _write(plan, described, found, to, progress)
    with writing(resume=resume) as to:  # this may fail, so it runs before the long work
        if to.finished:
            return Dataset.open(out)
        with find_windows(plan, progress) as found:
            return _write(plan, described, found, to, progress)


def _describe(plan: WindowPlan, fasta: Path) -> _Described:
    options: dict[str, Any] = {
        "valid": as_json(plan.splits.valid),
        "test": as_json(plan.splits.test),
        "exclude": plan.excluded.to_json(),
        "negatives": plan.negatives,
    }
    if plan.negatives:
        options["seed"] = plan.seed
    if plan.recipe == "deepsea":
        options["keep"] = plan.keep
    paths = [fasta, plan.table.path, *plan.table.files]
    digests = [plan.reference.digest(), *(file_sha256(path) for path in paths[1:])]
    sources = [{"path": str(p), "sha256": d} for p, d in zip(paths, digests, strict=True)]
    content = {"FASTA": digests[0], "table of peaks": digests[1], "set of peak files": digests[2:]}
    return _Described(options, sources, {"recipe": plan.recipe, **options, **content})


def _write(
    plan: WindowPlan,
    described: _Described,
    found: FoundWindows,
    to: writer.DatasetWriter,
    progress: Progress,
) -> Dataset:
    """Write the parts that no earlier build committed, and finish the dataset."""
    rows = {split: found.rows(split) for split in SPLITS}
    parts = [
        (split, part, min(writer.PART_ROWS, rows[split] - part * writer.PART_ROWS))
        for split in SPLITS
        for part in range(-(-rows[split] // writer.PART_ROWS))
    ]
    done = sum(count for split, part, count in parts if to.has(split, part))
    progress.begin("windows", sum(rows.values()), done, unit="windows")
    try:
        for split, part, count in parts:
            if not to.has(split, part):
                _write_part(plan, found, to, split, part)
                done += count
                progress.update(done)
    finally:
        progress.end()
    return to.finish(
        recipe=plan.recipe,
        sources=described.sources,
        options=described.options,
        counts=found.counts(),
    )


def _write_part(
    plan: WindowPlan, found: FoundWindows, to: writer.DatasetWriter, split: str, part: int
) -> None:
    records = found.read(split, part * writer.PART_ROWS, writer.PART_ROWS)
    names = list(plan.reference.contigs)
    contigs = [names[number] for number in records["contig"].tolist()]
    windows = writer.Windows(contigs, records["start"], records["negative"])
    codes = _fetch(plan, names, records["contig"], records["start"])
    to.write(split, part, codes, records["labels"], windows)


def _fetch(
    plan: WindowPlan, names: list[str], contigs: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Return the sequence of windows in genome order: codes (n, window_size)."""
    codes = np.empty((len(starts), plan.window_size), dtype=np.uint8)
    window_spec = WindowSpec(plan.window_size, 0)
    cuts = np.flatnonzero(np.diff(contigs)) + 1
    for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(starts)], strict=True):
        contig = plan.reference.contig(names[contigs[low]])
        for first in range(low, high, _FETCHED):
            last = min(first + _FETCHED, high)
            codes[first:last] = reference_windows(starts[first:last], window_spec, contig)
    return codes
