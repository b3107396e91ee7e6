"""`raygenome demo`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raygenome.demo.demo import DemoInputs, DemoResult

_HELP = """Score a synthetic genome of known truth with a small bundled model; no download.

The genome has transcription-factor motifs planted in it, and some of the variants break one. The
last line says how many of those the ranking puts on top.

Example: raygenome demo --out demo
"""

_SHOWN = 5
_COLUMNS = ("rank", "chrom", "pos", "ref", "alt", "target", "diff", "breaks")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(help=_HELP)(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Directory to make.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the genome and its variants.")] = 0,
    workers: Annotated[int, typer.Option(help="Ray actors; 0 runs in-process.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier demo in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make the demo's inputs, score them, and say how the ranking did."""
    from raygenome.cli.score import make_progress
    from raygenome.demo.demo import make_inputs, score_inputs

    inputs = make_inputs(out, seed=seed, overwrite=overwrite)
    if not as_json:
        typer.echo(describe_inputs(inputs, workers))
    result = score_inputs(inputs, workers=workers, progress=make_progress())
    typer.echo(json.dumps(as_document(inputs, result)) if as_json else describe_result(result))


def describe_inputs(inputs: "DemoInputs", workers: int) -> str:
    """Return what the demo says before it scores."""
    bases = sum(map(len, inputs.genome.sequences.values()))
    return "\n".join(
        [
            f"made {inputs.fasta}: {bases / 1e6:.1f} Mb of random sequence with "
            f"{len(inputs.genome.sites):,} motif sites planted in it",
            f"made {inputs.vcf}: {len(inputs.records):,} variants, "
            f"{len(inputs.truth()):,} of which break a planted motif",
            "",
            f"$ {inputs.command(workers)}",
        ]
    )


def describe_result(result: "DemoResult") -> str:
    """Return what the demo says after it has scored; the verdict is the last line."""
    counts, seconds = result.run.counts, result.run.seconds
    sql = "SELECT name, count(*) AS variants FROM ranked WHERE score > 0.5 GROUP BY name"
    return "\n".join(
        [
            f"read {counts['read']:,} alleles, scored {counts['scored']:,} "
            f"in {seconds['total']:.1f} s, into {result.run.path}",
            "",
            *_table(result),
            "",
            "ask it anything in SQL:",
            f'$ raygenome query {result.run.path} "{sql}"',
            "",
            result.verdict(),
        ]
    )


def as_document(inputs: "DemoInputs", result: "DemoResult") -> dict[str, object]:
    """Return what --json prints."""
    return {
        "fasta": str(inputs.fasta),
        "vcf": str(inputs.vcf),
        "out": str(result.run.path),
        "counts": result.run.counts,
        "seconds": result.run.seconds,
        "breaking": result.breaking,
        "found": result.found,
        "top": result.top[:_SHOWN],
    }


def _table(result: "DemoResult") -> list[str]:
    """Return the strongest alleles as lines of aligned columns, a header first."""
    rows = [
        (
            str(row["rank"]),
            row["chrom"],
            f"{row['pos']:,}",
            row["ref"],
            row["alt"],
            row["name"],
            f"{row['diff']:+.3f}",
            row["breaks"] or "-",
        )
        for row in result.top[:_SHOWN]
    ]
    lines = [_COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
