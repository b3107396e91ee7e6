"""`raygenome score`."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raygenome.cli.options import (
    AsJson,
    Command,
    Device,
    Fasta,
    Insecure,
    Model,
    Overwrite,
    Precision,
    RayAddress,
    Resume,
    Strands,
)
from raygenome.cli.progress import make_progress

_HELP = """Score every allele of a VCF with a model, into ranked Parquet.

VCF, model, FASTA and --out are paths or URLs: s3://BUCKET/NAME, gs://BUCKET/NAME. VCF and FASTA
must be of one genome build. Afterwards: raygenome top, query, verify.

\b
Example: raygenome score variants.vcf.gz --model deepsea \\
    --fasta hg19.fa --out scores
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=Command, help=_HELP)(score)


def score(
    vcf: Annotated[
        str,
        typer.Argument(metavar="VCF", help="VCF, .vcf.gz, .vcf.bgz or BCF; - is standard input."),
    ],
    model: Model,
    fasta: Fasta,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Output folder. [default: the VCF's name and the model's]"
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Ray workers; 0: this process, without Ray; auto: one per GPU, else per core, "
            "and none for a small input.",
        ),
    ] = "auto",
    shard_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Maximum alleles per shard. [default: by the input's size]"),
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    engine: Annotated[
        Literal["auto", "incremental", "full"],
        typer.Option(
            help="full: a forward pass per window; incremental: the same numbers, faster; auto: "
            "incremental where the net allows it."
        ),
    ] = "auto",
    strands: Strands = "both",
    effects: Annotated[
        Literal["full", "top"],
        typer.Option(help="full: one column per target; top: only each allele's strongest."),
    ] = "full",
    effect_dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="Type of the target columns.")
    ] = "float16",
    top_k: Annotated[
        int, typer.Option(metavar="N", help="Targets listed in the column `top` of an allele.")
    ] = 16,
    top_n: Annotated[int, typer.Option(metavar="N", help="Alleles ranked for each target.")] = 1000,
    log_odds: Annotated[
        bool, typer.Option("--log-odds", help="Also write differences of log2 odds, in log_odds/.")
    ] = False,
    indel_mode: Annotated[
        Literal["symmetric", "left-anchor"],
        typer.Option(help="Window around an indel: as DeepSEA, or as kipoi-veff2."),
    ] = "symmetric",
    ref_mismatch: Annotated[
        Literal["skip", "error", "keep"],
        typer.Option(help="Where REF is not the FASTA's: skip the allele, stop, or score anyway."),
    ] = "skip",
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--regions", "-r", metavar="REGION", help="Only alleles in chr20:1,000-2,000 (1-based)."
        ),
    ] = None,
    regions_file: Annotated[
        list[str] | None,
        typer.Option("--regions-file", "-R", metavar="BED", help="Only alleles in this BED file."),
    ] = None,
    apply_filters: Annotated[
        list[str] | None,
        typer.Option(
            "--apply-filters",
            "-f",
            metavar="FILTER",
            help="Only records with this FILTER, such as PASS.",
        ),
    ] = None,
    worker_gpus: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="GPUs per worker; 0.5: two workers per GPU."),
    ] = None,
    address: RayAddress = None,
    insecure: Insecure = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only estimate: alleles, disk space and time."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a VCF; the body is one call of the library."""
    given: dict[str, Any] = dict(locals())  # the library's parameters have the same names
    for name in ("dry_run", "as_json"):
        del given[name]
    from raygenome.scoring import estimate, run

    if dry_run:
        for name in ("out", "resume", "overwrite"):
            del given[name]
        found = estimate.dry_run(**given)
        typer.echo(json.dumps(found) if as_json else describe_estimate(found))
        return
    given["out"] = out or default_out(vcf, model)
    result = run.score(**given, progress=make_progress())
    if as_json:
        summary = {"out": str(result.path), "counts": result.counts, "seconds": result.seconds}
        typer.echo(json.dumps(summary))
    else:
        typer.echo(describe_run(result.path, result.document))


def default_out(vcf: str, model: str) -> Path:
    """Return the default of --out: variants.vcf.gz and deepsea give variants.deepsea."""
    if vcf == "-" or (Path(vcf).exists() and not Path(vcf).is_file()):
        raise typer.BadParameter("reading standard input or a pipe needs --out; add --out DIR")
    name = Path(vcf).name
    for ending in (".gz", ".bgz", ".vcf", ".bcf"):
        name = name.removesuffix(ending)
    return Path(f"{name}.{Path(model).name}")


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
    """Return the output of --dry-run."""
    from raygenome.progress.bars import duration

    counts = found["counts"]
    where = f"{found['workers']} Ray workers" if found["workers"] else "this process"
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
    ]
    if found["variants_per_second"] or not found["shards"]:
        rate = f"{found['variants_per_second']:>12,.1f} variants/s, from a timed sample"
        lines += [f"rate      {rate}", f"time      {duration(found['seconds']):>12}"]
    else:
        lines.append("time           unknown: only the cluster has such a device")
    return "\n".join(lines)
