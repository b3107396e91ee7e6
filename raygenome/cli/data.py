"""`raygenome data`: build, import, show."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from raygenome.cli.score import make_progress

if TYPE_CHECKING:
    from raygenome.datasets.packed import Dataset

app = typer.Typer(
    help="Make and look at training data.", no_args_is_help=True, rich_markup_mode=None
)

Out = Annotated[str, typer.Option(help="Output folder, or s3://... or gs://...")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted one left.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the dataset there first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _ManyPlaces(TyperCommand):
    """Takes `--test chr8 chr9` for `--test chr8 --test chr9`; there are no other bare words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option in front of each further place."""
        spelled: list[str] = []
        option = None
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--valid", "--test", "--exclude") else None
            elif option is not None and spelled[-1] != option:
                spelled.append(option)
            spelled.append(word)
        return super().parse_args(ctx, spelled)


_PLACE = "A contig or region, chr8 or chr7:30,508,751-35,296,850 (1-based), or several."


@app.command(
    cls=_ManyPlaces,
    help="Make training data from a genome and peak files.\n\n"
    "basset: windows of 600 bp on merged peaks. deepsea: windows of 1,000 bp on bins of 200 bp, "
    "labelled where more than half of the bin is in a peak.\n\n"
    "Example: raygenome data build --recipe basset --fasta hg19.fa --peaks peaks.tsv "
    "--valid chr7:30,508,751-35,296,850 --test chr8 --test chr9 --negatives 100000 --out data",
)
def build(
    recipe: Annotated[
        Literal["basset", "deepsea"], typer.Option(help="How windows are chosen and labelled.")
    ],
    fasta: Annotated[
        Path, typer.Option(envvar="RAYGENOME_FASTA", help="The genome, plain or bgzipped FASTA.")
    ],
    peaks: Annotated[
        Path, typer.Option(help="Table with the columns target and path: a BED file of peaks each.")
    ],
    out: Out,
    valid: Annotated[
        list[str] | None, typer.Option(metavar="REGION|CONTIG", help=f"For validation. {_PLACE}")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(metavar="REGION|CONTIG", help=f"For the test. {_PLACE}")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="REGION|CONTIG", help=f"Left out. {_PLACE}")
    ] = None,
    negatives: Annotated[
        int,
        typer.Option(
            "--negatives",
            "--background",
            min=0,
            help="Number of windows outside every peak to add.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random choices.")] = 0,
    keep: Annotated[
        Literal["auto", "tf", "any"],
        typer.Option(
            help="deepsea: keep bins that a TF peak overlaps, or any peak; auto: tf where the "
            "table has TFs."
        ),
    ] = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build a dataset; the body is one call of the library."""
    from raygenome.datasets import build as builder

    made = builder.build(
        recipe,
        fasta=fasta,
        peaks=peaks,
        out=out,
        valid=valid or (),
        test=test or (),
        exclude=exclude or (),
        negatives=negatives,
        seed=seed,
        keep=keep,
        resume=resume,
        overwrite=overwrite,
        progress=make_progress(),
    )
    _report(made, as_json)


@app.command(
    "import",
    help="Make training data from published files: DeepSEA's .mat or Basset's .h5.\n\n"
    "What a file is, is told by its content; splits in several files are put together.\n\n"
    "Example: raygenome data import train.mat valid.mat test.mat --out deepsea-data",
)
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of one kind.")],
    out: Out,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import files; the body is one call of the library."""
    from raygenome.datasets import imports

    made = imports.import_files(
        files, out=out, resume=resume, overwrite=overwrite, progress=make_progress()
    )
    _report(made, as_json)


@app.command(
    help="Say what training data holds: rows, positives by target, sources, leakage.\n\n"
    "Example: raygenome data show data --verify"
)
def show(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A packed dataset.")],
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and check it first.")
    ] = False,
) -> None:
    """Print what a dataset holds."""
    from raygenome.datasets.packed import Dataset

    dataset = Dataset.open(directory)
    if verify:
        dataset.verify()
    _report(dataset, as_json)


def _report(dataset: "Dataset", as_json: bool) -> None:
    from raygenome.datasets.show import describe, render

    facts = describe(dataset)
    typer.echo(json.dumps(facts, indent=2) if as_json else render(facts))
