"""`raygenome data`: build, import, show."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raygenome.cli.options import (
    AsJson,
    Command,
    Fasta,
    OutPlace,
    Overwrite,
    Resume,
    Seed,
)
from raygenome.cli.progress import make_progress

if TYPE_CHECKING:
    from raygenome.datasets.packed import Dataset

app = typer.Typer(help="Make and show training data.", no_args_is_help=True, rich_markup_mode=None)


class _ManyPlaces(Command):
    """Reads `--test chr8 chr9` as `--test chr8 --test chr9`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option in front of each further region."""
        spelled: list[str] = []
        option = None
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--valid", "--test", "--exclude") else None
            elif option is not None and spelled[-1] != option:
                spelled.append(option)
            spelled.append(word)
        return super().parse_args(ctx, spelled)


def _places(purpose: str) -> Any:
    return typer.Option(
        metavar="REGION ...", help=f"{purpose}: chr8, or chr7:1,000-2,000 (1-based)."
    )


@app.command(
    cls=_ManyPlaces,
    help="Make training data from a genome and peak files.\n\n"
    "basset: windows of 600 bp on merged peaks. deepsea: windows of 1,000 bp on bins of 200 bp; "
    "a bin is positive if more than half of it is in a peak.\n\n"
    "\b\nExample: raygenome data build --recipe basset --fasta hg19.fa \\\n"
    "    --peaks peaks.tsv --valid chr7 --test chr8 chr9 --negatives 100000 \\\n"
    "    --out data",
)
def build(
    recipe: Annotated[
        Literal["basset", "deepsea"], typer.Option(help="How windows are chosen and labelled.")
    ],
    fasta: Fasta,
    peaks: Annotated[
        Path,
        typer.Option(
            metavar="TSV", help="Table with the columns target and path (one BED file of peaks)."
        ),
    ],
    out: OutPlace,
    valid: Annotated[list[str] | None, _places("For validation")] = None,
    test: Annotated[list[str] | None, _places("For the test")] = None,
    exclude: Annotated[list[str] | None, _places("Not used")] = None,
    negatives: Annotated[
        int,
        typer.Option(
            "--negatives",
            "--background",
            min=0,
            metavar="N",
            help="Number of windows outside every peak to add.",
        ),
    ] = 0,
    seed: Seed = 0,
    keep: Annotated[
        Literal["auto", "tf", "any"],
        typer.Option(
            help="deepsea: keep bins in a TF peak, or in any peak; auto: tf if the table has TFs."
        ),
    ] = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build a dataset; the body is one call of the library."""
    given: dict[str, Any] = dict(locals())  # the library's parameters have the same names
    del given["as_json"]
    from raygenome.datasets import build as builder

    for name in ("valid", "test", "exclude"):
        given[name] = given[name] or ()
    _report(builder.build(given.pop("recipe"), **given, progress=make_progress()), as_json)


@app.command(
    "import",
    cls=Command,
    help="Make training data from published .mat or .h5 files.\n\n"
    "DeepSEA's .mat and Basset's .h5 are recognised by their content. The splits may be in "
    "several files.\n\n"
    "\b\nExample: raygenome data import train.mat valid.mat test.mat \\\n    --out deepsea-data",
)
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of one format.")],
    out: OutPlace,
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
    cls=Command,
    help="Show a dataset: rows, positives by target, sources, leakage.\n\n"
    "Example: raygenome data show data --verify",
)
def show(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Dataset: a folder or a URL.")],
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="First check every file against its SHA-256.")
    ] = False,
) -> None:
    """Print the content of a dataset."""
    from raygenome.datasets.packed import Dataset

    dataset = Dataset.open(directory)
    if verify:
        dataset.verify()
    _report(dataset, as_json)


def _report(dataset: "Dataset", as_json: bool) -> None:
    from raygenome.cli.dataset_report import render
    from raygenome.datasets.show import describe

    facts = describe(dataset)
    typer.echo(json.dumps(facts, indent=2) if as_json else render(facts))
