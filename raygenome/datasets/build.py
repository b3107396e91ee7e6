"""Building a dataset from a FASTA and peak files, by one of the two published recipes.

First the sites of the whole genome are found, contig by contig, and kept in temporary files, one a
split; then their sequence is fetched and written, part by part. So memory is flat in the number of
sites, what is wrong with the input is said before anything is written, and a build that was killed
goes on behind the last part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raygenome.datasets import writer
from raygenome.datasets.found_sites import RECIPES, FoundSites, SitePlan, find_sites
from raygenome.datasets.manifest import MANIFEST_FILE, SPLITS
from raygenome.datasets.packed import Dataset
from raygenome.datasets.packing import unpack_labels
from raygenome.datasets.peaks import read_table
from raygenome.datasets.sites_deepsea import resolve_keep
from raygenome.datasets.splits import Excluded, Splits, as_json
from raygenome.errors import UsageError
from raygenome.genome.fasta import Reference
from raygenome.genome.windows import WindowSpec, reference_windows
from raygenome.progress.bars import NoProgress, Progress
from raygenome.storage.bucket import require_local
from raygenome.storage.files import file_sha256

#: Windows that are fetched together: few, as those far apart come with what is between them.
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
    background: int = 0,
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
        out: the folder to make.
        valid: regions or contigs whose windows are for validation.
        test: the same for the test; what is in neither is for training.
        exclude: regions or contigs of which nothing is wanted; also contigs that only peaks name.
        background: how many windows outside every peak to add, without any label.
        seed: of their draw.
        keep: which bins DeepSEA's recipe keeps, see `sites_deepsea.KEEP`.
        resume: go on with a build that was stopped.
        overwrite: replace a dataset in `out`, once the input has been found to be sound.
        progress: told what is done.

    Raises:
        UsageError: an option that cannot be used, `resume` and `overwrite` both, or --valid and
            --test overlap.
        DataError: the input is wrong, a split is empty, a target has no positive, or `resume` with
            other input than before.
        NoInput: a file is not there.
        OutputError: `out` holds something or cannot be made.
    """
    if recipe not in RECIPES:
        raise UsageError(f"no recipe is called {recipe!r}; there are: {', '.join(RECIPES)}")
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one")
    if background < 0 or seed < 0:
        raise UsageError(f"--background {background} and --seed {seed}: neither may be negative")
    if recipe != "deepsea" and keep != "auto":
        raise UsageError(f"--keep {keep} is for the recipe deepsea; {recipe} keeps every peak")
    for place, option in ((fasta, "--fasta"), (peaks, "--peaks"), (out, "--out")):
        require_local(place, option)
    table = read_table(Path(peaks))
    reference = Reference.open(fasta)
    try:
        plan = SitePlan(
            recipe=recipe,
            reference=reference,
            table=table,
            splits=Splits(valid, test, reference.contigs),
            excluded=Excluded(exclude, reference.contigs),
            keep=resolve_keep(table.targets, keep),
            background=background,
            seed=seed,
        )
        return _build(plan, Path(fasta), Path(out), resume, overwrite, progress or NoProgress())
    finally:
        reference.close()


class _Described(NamedTuple):
    """What the manifest says of where a dataset comes from."""

    options: dict[str, Any]
    sources: list[dict[str, Any]]
    identity: dict[str, Any]


def _build(
    plan: SitePlan, fasta: Path, out: Path, resume: bool, overwrite: bool, progress: Progress
) -> Dataset:
    described = _describe(plan, fasta)

    def writing(**how: bool) -> writer.DatasetWriter:
        return writer.DatasetWriter(
            out,
            window=plan.window,
            targets=plan.table.targets,
            identity=described.identity,
            **how,
        )

    if overwrite:  # this clears `out`, so the input must be found sound before
        with find_sites(plan, progress) as found, writing(overwrite=True) as to:
            return _write(plan, described, found, to, progress)
    with writing(resume=resume) as to:  # this refuses, so it comes before the long work
        if (out / MANIFEST_FILE).exists():
            return Dataset.open(out)
        with find_sites(plan, progress) as found:
            return _write(plan, described, found, to, progress)


def _describe(plan: SitePlan, fasta: Path) -> _Described:
    options: dict[str, Any] = {
        "valid": as_json(plan.splits.valid),
        "test": as_json(plan.splits.test),
        "exclude": plan.excluded.to_json(),
        "background": plan.background,
    }
    if plan.background:
        options["seed"] = plan.seed
    if plan.recipe == "deepsea":
        options["keep"] = plan.keep
    paths = [fasta, plan.table.path, *plan.table.files]
    digests = [plan.reference.digest(), *(file_sha256(path) for path in paths[1:])]
    sources = [{"path": str(p), "sha256": d} for p, d in zip(paths, digests, strict=True)]
    content = {"FASTA": digests[0], "table of peaks": digests[1], "set of peak files": digests[2:]}
    return _Described(options, sources, {"recipe": plan.recipe, **options, **content})


def _write(
    plan: SitePlan,
    described: _Described,
    found: FoundSites,
    to: writer.DatasetWriter,
    progress: Progress,
) -> Dataset:
    """Write the windows that an earlier try has not, and finish the dataset."""
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
    plan: SitePlan, found: FoundSites, to: writer.DatasetWriter, split: str, part: int
) -> None:
    records = found.read(split, part * writer.PART_ROWS, writer.PART_ROWS)
    names = list(plan.reference.contigs)
    contigs = [names[number] for number in records["contig"].tolist()]
    sites = writer.Sites(contigs, records["start"], records["background"])
    codes = _fetch(plan, names, records["contig"], records["start"])
    labels = unpack_labels(records["labels"], len(plan.table.targets))
    to.write(split, part, codes, labels, sites)


def _fetch(plan: SitePlan, names: list[str], contigs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sequence of windows in genome order: codes (n, window)."""
    codes = np.empty((len(starts), plan.window), dtype=np.uint8)
    window_spec = WindowSpec(plan.window, 0)
    cuts = np.flatnonzero(np.diff(contigs)) + 1
    for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(starts)], strict=True):
        contig = _Contig(plan.reference, names[contigs[low]])
        for first in range(low, high, _FETCHED):
            last = min(first + _FETCHED, high)
            codes[first:last] = reference_windows(starts[first:last], window_spec, contig)
    return codes


class _Contig(NamedTuple):
    """One contig of a genome."""

    reference: Reference
    name: str

    def fetch(self, start: int, end: int) -> np.ndarray:
        """Return the codes of [start, end), with N beyond the contig's ends."""
        return self.reference.fetch(self.name, start, end)
