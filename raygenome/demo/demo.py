"""The demo: a synthetic genome and VCF with known truth, scored like any other.

Nothing is downloaded: `synthetic` makes the genome and the variants from a seed, and the model
"demo" is part of the program.
"""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raygenome.demo.synthetic import (
    CONTIGS,
    Genome,
    Record,
    make_genome,
    make_variants,
    write_fasta,
    write_vcf,
)
from raygenome.errors import OutputError, UsageError
from raygenome.genome.contigs import display_name
from raygenome.progress.bars import Progress
from raygenome.results.run_dir import RANKED_VARIANTS
from raygenome.scoring import run
from raygenome.scoring.run_json import ScoreRun

SEED = 0
RECORDS, BREAKING = 3_000, 60

#: An allele by its coordinates as the tables show them: chrom, pos (1-based), ref, alt.
Key = tuple[str, int, str, str]


@dataclass(frozen=True)
class DemoInputs:
    """The inputs of a demo, on disk and in memory, and the folder of its run."""

    fasta: Path
    vcf: Path
    out: Path
    genome: Genome
    records: list[Record]

    def truth(self) -> dict[Key, str]:
        """Return the motif that each motif-breaking allele breaks; others are left out."""
        return {
            (display_name(record.contig), record.start + 1, record.ref, alt): motif
            for record in self.records
            for alt, motif in zip(record.alts, record.truth, strict=True)
            if motif is not None
        }

    def command(self, workers: int | None = 0) -> str:
        """Return the command line that scores these inputs as the demo does."""
        words = ["raygenome", "score", str(self.vcf), "--model", "demo", "--fasta", str(self.fasta)]
        words += ["--out", str(self.out)]
        return shlex.join(words if workers is None else [*words, "--workers", str(workers)])


@dataclass(frozen=True)
class DemoResult:
    """How well the ranking found the motif-breaking alleles.

    Attributes:
        run: the scoring run.
        breaking: number of motif-breaking alleles in the VCF (the N of the last line).
        found: how many of them are among the N strongest (the K of the last line).
        top: the N strongest alleles, rows of ranked/variants.parquet with `breaks` added: the motif
            that the allele breaks, or None.
    """

    run: ScoreRun
    breaking: int
    found: int
    top: list[dict[str, Any]]

    def verdict(self) -> str:
        """Return the last line of the demo."""
        n = self.breaking
        return f"found {self.found} of {n} motif-breaking variants in the top {n}"


def run_demo(
    out: Path,
    *,
    seed: int = SEED,
    workers: int | None = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Make the inputs under `out`, score them into `out`/run, and count what the ranking found.

    Args:
        out: the output folder.
        seed: seed of the genome and the variants; the model is always the same.
        workers: Ray actors, as in `raygenome.score`; 0 by default, because Ray takes longer to
            start than the scoring takes.
        overwrite: replace an earlier demo in `out`.
        progress: shows the progress of scoring.

    Raises:
        OutputError: `out` exists already, or cannot be made.
        UsageError: a negative seed.
    """
    inputs = make_inputs(out, seed=seed, overwrite=overwrite)
    return score_inputs(inputs, workers=workers, progress=progress)


def make_inputs(
    out: Path,
    *,
    seed: int = SEED,
    records: int = RECORDS,
    breaking: int = BREAKING,
    overwrite: bool = False,
) -> DemoInputs:
    """Write demo.fa and demo.vcf in `out`; for errors see `run_demo`."""
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be 0 or larger")
    fasta, vcf, scores = out / "demo.fa", out / "demo.vcf", out / "run"
    _claim(out, [fasta, Path(f"{fasta}.fai"), vcf, scores], overwrite=overwrite)
    genome = make_genome(seed)
    variants = make_variants(genome, seed, n=records, n_breaking=breaking)
    write_fasta(genome, fasta)
    write_vcf(variants, CONTIGS, vcf)
    return DemoInputs(fasta, vcf, scores, genome, variants)


def score_inputs(
    inputs: DemoInputs,
    *,
    model: str | Path = "demo",
    workers: int | None = 0,
    progress: Progress | None = None,
) -> DemoResult:
    """Score the inputs of a demo and compare the ranking with the truth."""
    result = run.score(
        inputs.vcf,
        model=model,
        fasta=inputs.fasta,
        out=inputs.out,
        workers=workers,
        progress=progress,
    )
    truth = inputs.truth()
    ranked = pq.read_table(Path(result.path) / RANKED_VARIANTS).sort_by("rank")
    top = ranked.slice(0, len(truth)).to_pylist()
    for row in top:
        row["breaks"] = truth.get((row["chrom"], row["pos"], row["ref"], row["alt"]))
    found = sum(row["breaks"] is not None for row in top)
    return DemoResult(result, len(truth), found, top)


def _claim(out: Path, ours: list[Path], *, overwrite: bool) -> None:
    """Make `out` an empty directory; removes only the files of an earlier demo."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; --out needs a directory", "choose another --out")
    there = list(out.iterdir()) if out.is_dir() else []
    if others := sorted(path.name for path in there if path not in ours):
        raise OutputError(
            f"{out} contains {others[0]}, which is not from a demo", "choose another --out"
        )
    if there and not overwrite:
        raise OutputError(f"{out} holds a demo already", "add --overwrite or choose another --out")
    try:
        for path in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {out} ({error.strerror})", "choose another --out") from None
