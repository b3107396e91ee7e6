"""`raygenome demo`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raygenome.cli.options import AsJson, Command, OutFolder, Overwrite, Seed
from raygenome.cli.progress import make_progress
from raygenome.cli.tables import make_table, terminal_width

if TYPE_CHECKING:
    from raygenome.demo.demo import DemoInputs, DemoResult

_HELP = """Score a synthetic genome with a small model; no download.

Motifs of transcription factors are planted in the genome, and some of the variants break one. So
the truth is known: the last line says how many of these variants are ranked on top.

Example: raygenome demo --out demo
"""

_SHOWN = 5
_COLUMNS = ("rank", "chrom", "pos", "ref", "alt", "target", "diff", "breaks")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=Command, help=_HELP)(demo)


def demo(
    out: OutFolder = Path("demo"),
    seed: Seed = 0,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Ray workers; 0: this process, without Ray.")
    ] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make the demo's inputs, score them, and compare the ranking with the truth."""
    from raygenome.demo.demo import make_inputs, score_inputs

    inputs = make_inputs(out, seed=seed, overwrite=overwrite)
    if not as_json:
        typer.echo(describe_inputs(inputs, workers))
    result = score_inputs(inputs, workers=workers, progress=make_progress())
    typer.echo(json.dumps(as_document(inputs, result)) if as_json else describe_result(result))


def describe_inputs(inputs: "DemoInputs", workers: int) -> str:
    """Return the text before scoring."""
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
    """Return the text after scoring; the verdict is the last line."""
    counts, seconds = result.run.counts, result.run.seconds
    sql = "SELECT name, count(*) AS variants FROM ranked WHERE score > 0.5 GROUP BY name"
    return "\n".join(
        [
            f"read {counts['read']:,} alleles, scored {counts['scored']:,} "
            f"in {seconds['total']:.1f} s, into {result.run.path}",
            "",
            _top_table(result),
            "",
            "query the run with SQL:",
            f'$ raygenome query {result.run.path} "{sql}"',
            "",
            result.verdict(),
        ]
    )


def as_document(inputs: "DemoInputs", result: "DemoResult") -> dict[str, object]:
    """Return the JSON document of --json."""
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


def _top_table(result: "DemoResult") -> str:
    """Return the strongest alleles as a table."""
    rows = [
        [row[key] for key in ("rank", "chrom", "pos", "ref", "alt", "name", "diff")]
        + [row["breaks"] or "-"]
        for row in result.top[:_SHOWN]
    ]
    formats = {"pos": ",d", "diff": "+.3f"}
    return make_table(
        _COLUMNS, rows, width=terminal_width(), formats=formats, wrap=("ref", "alt")
    ).text
