"""`raygenome evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raygenome.cli.options import (
    AsJson,
    Command,
    Data,
    Device,
    Model,
    Overwrite,
    Precision,
    Strands,
)
from raygenome.cli.progress import make_progress
from raygenome.cli.tables import print_table

if TYPE_CHECKING:
    from raygenome.evaluation.evaluate import Evaluation

_HELP = """Measure a model on a dataset: AUROC and AUPRC of each target.

--among chooses the negatives of a target: all windows without it; peaks, only windows in a peak of
another target (Basset's own test); negatives (or background), only windows outside every
peak.

\b
Example: raygenome evaluate --model run/model --data data --split test \\
    --out test.parquet
"""

#: With more targets than this, only the categories are printed; the file has every target.
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=Command, help=_HELP)(evaluate)


def evaluate(
    model: Model,
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Parquet file to write, one row per target.")
    ],
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Split to measure on.")
    ] = "test",
    among: Annotated[
        Literal["all", "peaks", "negatives", "background"],
        typer.Option(help="Windows used as negatives."),
    ] = "all",
    strands: Strands = "both",
    device: Device = "auto",
    precision: Precision = "fp32",
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Windows per forward pass.")
    ] = 256,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate; the body is one call of the library."""
    given: dict[str, Any] = dict(locals())  # the library's parameters have the same names
    del given["as_json"]
    from raygenome.evaluation import evaluate as evaluation

    found = evaluation.evaluate(**given, progress=make_progress())
    if as_json:
        typer.echo(json.dumps(as_document(found, out)))
    else:
        _print(found, out)


def as_document(found: "Evaluation", out: Path) -> dict[str, Any]:
    """Return the JSON document of --json."""
    return {
        "out": str(out),
        **found.about,
        "summary": found.summary(),
        "targets": found.table.to_pylist(),
    }


def _print(found: "Evaluation", out: Path) -> None:
    """Print the targets if they are few, the categories, and a summary."""
    rows = found.table.to_pylist()
    if len(rows) <= _SHOWN:
        columns = {"name": "", "positives": ",d", "negatives": ",d", "auroc": ".4f", "auprc": ".4f"}
        _print_columns(["target", "positives", "negatives", "AUROC", "AUPRC"], columns, rows)
        typer.echo()
    columns = {"category": "", "targets": ",d", "scored": ",d"}
    columns |= {f"{m}_{k}": ".4f" for m in ("auroc", "auprc") for k in ("mean", "median")}
    summary = [{**row, "category": row["category"] or "none"} for row in found.summary()]
    names = ["AUROC\nmean", "AUROC\nmedian", "AUPRC\nmean", "AUPRC\nmedian"]
    _print_columns(["category", "targets", "scored", *names], columns, summary)
    about = found.about
    typer.echo(
        f"\n{about['rows']:,} windows of {about['split']}, negatives among {about['among']}, "
        f"{about['strands']} strand{'s' if about['strands'] == 'both' else ''}\nwrote {out}"
    )


def _print_columns(names: list[str], columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """Print some columns of rows; `columns` has the format of each."""
    formats = dict(zip(names, columns.values(), strict=True))
    print_table(names, [[row[key] for key in columns] for row in rows], formats=formats)
