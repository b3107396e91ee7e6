"""`raygenome score`."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from raygenome.progress.bars import Progress

_HELP = """Score every allele of a VCF with a model, into ranked Parquet.

Example: raygenome score variants.vcf.gz --model deepsea --fasta hg38.fa --out scores

Then ask: raygenome top scores, raygenome query scores "SELECT ...", raygenome verify scores.

VCF, model, FASTA and --out are paths, or URLs: s3://BUCKET/NAME, gs://BUCKET/NAME.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(help=_HELP)(score)


def score(
    vcf: Annotated[str, typer.Argument(help="VCF, .vcf.gz, .vcf.bgz or BCF; - is standard input.")],
    model: Annotated[str, typer.Option(help="Name of a model, or a model directory.")],
    fasta: Annotated[
        str, typer.Option(envvar="RAYGENOME_FASTA", help="The genome, plain or bgzipped FASTA.")
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Run directory to make. [default: the VCF's name and the model's]"),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Ray actors; 0 runs in-process; auto: one a GPU, or a core."
        ),
    ] = "auto",
    shard_size: Annotated[
        int | None, typer.Option(help="Most alleles a shard. [default: by the input's size]")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"], typer.Option(help="Arithmetic of the forward pass.")
    ] = "fp32",
    engine: Annotated[
        Literal["auto", "incremental", "full"],
        typer.Option(help="full: the whole net each time; incremental: the same numbers, faster."),
    ] = "auto",
    strands: Annotated[
        Literal["both", "forward"], typer.Option(help="Average both strands, or one only.")
    ] = "both",
    effects: Annotated[
        Literal["full", "top"],
        typer.Option(help="full: one column a target; top: only the strongest of each allele."),
    ] = "full",
    effect_dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="Type of the target columns.")
    ] = "float16",
    top_k: Annotated[int, typer.Option(help="Targets listed in each allele's `top`.")] = 16,
    top_n: Annotated[int, typer.Option(help="Alleles ranked for each target.")] = 1000,
    log_odds: Annotated[
        bool, typer.Option("--log-odds", help="Also write log2 odds differences, in log_odds/.")
    ] = False,
    indel_mode: Annotated[
        Literal["symmetric", "left-anchor"],
        typer.Option(help="symmetric: as DeepSEA; left-anchor: as kipoi-veff2."),
    ] = "symmetric",
    ref_mismatch: Annotated[
        Literal["skip", "error", "keep"],
        typer.Option(help="When REF is not the FASTA's: skip, stop, or score against the FASTA."),
    ] = "skip",
    regions: Annotated[
        list[str] | None,
        typer.Option("--regions", "-r", help="Only alleles here: chr20:1,000-2,000 (1-based)."),
    ] = None,
    regions_file: Annotated[
        list[str] | None,
        typer.Option("--regions-file", "-R", metavar="PATH", help="Only alleles in this BED."),
    ] = None,
    apply_filters: Annotated[
        list[str] | None,
        typer.Option("--apply-filters", "-f", help="Only records with this FILTER: PASS."),
    ] = None,
    worker_gpus: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of a GPU an actor takes; 0.5: two a GPU."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto, or HOST:PORT of its head.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Use a cluster also where no token guards it.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted run left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run that is there first.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and how long it would take.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score a VCF; the body is one call of the library."""
    options: dict[str, Any] = {
        "shard_size": shard_size,
        "device": device,
        "precision": precision,
        "engine": engine,
        "strands": strands,
        "effects": effects,
        "effect_dtype": effect_dtype,
        "top_k": top_k,
        "top_n": top_n,
        "log_odds": log_odds,
        "indel_mode": indel_mode,
        "ref_mismatch": ref_mismatch,
        "regions": regions or (),
        "regions_file": regions_file or (),
        "apply_filters": apply_filters or (),
    }
    from raygenome.scoring import estimate, run

    where: dict[str, Any] = {
        "workers": workers,
        "worker_gpus": worker_gpus,
        "address": address,
        "insecure": insecure,
    }
    if dry_run:
        found = estimate.dry_run(vcf, model=model, fasta=fasta, **where, **options)
        typer.echo(json.dumps(found) if as_json else describe_estimate(found))
        return
    result = run.score(
        vcf,
        model=model,
        fasta=fasta,
        out=out or default_out(vcf, model),
        resume=resume,
        overwrite=overwrite,
        progress=make_progress(),
        **where,
        **options,
    )
    if as_json:
        told = {"out": str(result.path), "counts": result.counts, "seconds": result.seconds}
        typer.echo(json.dumps(told))
    else:
        typer.echo(describe_run(result.path, result.document))


def default_out(vcf: str, model: str) -> Path:
    """Return the run directory's name where none is given: variants.vcf.gz -> variants.deepsea."""
    if vcf == "-" or (Path(vcf).exists() and not Path(vcf).is_file()):
        raise typer.BadParameter("an input that is a stream gives the run no name: add --out DIR")
    name = Path(vcf).name
    for ending in (".gz", ".bgz", ".vcf", ".bcf"):
        name = name.removesuffix(ending)
    return Path(f"{name}.{Path(model).name}")


def make_progress() -> "Progress":
    """Return a bar where a person looks at a terminal, lines elsewhere."""
    from raygenome.progress.bars import BarProgress, LineProgress

    return BarProgress() if sys.stderr.isatty() else LineProgress(sys.stderr)


def describe_run(path: Path | str, document: dict[str, Any]) -> str:
    """Return the summary that ends a run."""
    counts, seconds = document["counts"], document["seconds"]
    rate = counts["scored"] / max(seconds["score"], 1e-9)
    lines = [
        f"read      {counts['read']:>12,} alleles",
        f"scored    {counts['scored']:>12,}   {rate:,.1f} variants/s",
    ]
    if counts["filtered"]:
        lines.append(f"filtered  {counts['filtered']:>12,}")
    lines.append(f"skipped   {sum(counts['skipped'].values()):>12,}")
    lines += [f"  {n:>18,} {reason}" for reason, n in counts["skipped"].items()]
    phases = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    lines.append(f"seconds   {seconds['total']:>12,.1f}   ({phases})")
    lines.append(f"wrote     {path}   (try: raygenome top {shlex.quote(str(path))})")
    return "\n".join(lines)


def describe_estimate(found: dict[str, Any]) -> str:
    """Return what --dry-run prints."""
    from raygenome.progress.bars import duration

    counts = found["counts"]
    where = f"{found['workers']} Ray actors" if found["workers"] else "this process"
    lines = [
        f"read      {counts['read']:>12,} alleles",
        f"to score  {counts['scored']:>12,}   in {found['shards']:,} shards",
        f"filtered  {counts['filtered']:>12,}",
        f"skipped   {sum(counts['skipped'].values()):>12,}",
    ]
    lines += [f"  {n:>18,} {reason}" for reason, n in counts["skipped"].items()]
    lines += [
        f"disk      {found['bytes'] / 1e6:>12,.1f} MB",
        f"engine    {found['engine']} on {found['device']}, {where}",
        f"          {found['forms']}",
    ]
    if found["variants_per_second"] or not found["shards"]:
        rate = f"{found['variants_per_second']:>12,.1f} variants/s, from a timed sample"
        lines += [f"rate      {rate}", f"time      {duration(found['seconds']):>12}"]
    else:
        lines.append("time           unknown: only the cluster's nodes have such a device")
    return "\n".join(lines)
