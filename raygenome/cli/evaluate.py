"""`raygenome evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from raygenome.evaluation.evaluate import Evaluation

_HELP = """Measure a model on a split of a packed dataset: AUROC and AUPRC of each target.

Example: raygenome evaluate --model RUN/model --data dataset --split test --out scores.parquet

--among says which windows may be negatives of a target, beside its positives: all of them; peaks,
those in a peak of another target (Basset's own test); negatives, those outside every peak (an older
name is background).
"""

#: Above so many targets only the categories are printed; the file has every target.
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(help=_HELP)(evaluate)


def evaluate(
    model: Annotated[str, typer.Option(help="Name of a model, or a model directory.")],
    data: Annotated[str, typer.Option(help="The packed dataset.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, a row a target.")],
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Which windows.")
    ] = "test",
    among: Annotated[
        Literal["all", "peaks", "negatives", "background"],
        typer.Option(help="Which windows may be negatives."),
    ] = "all",
    strands: Annotated[
        Literal["both", "forward"], typer.Option(help="Average both strands, or one only.")
    ] = "both",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"], typer.Option(help="Arithmetic of the forward pass.")
    ] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Windows a forward pass.")] = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate; the body is one call of the library."""
    from raygenome.cli.score import make_progress
    from raygenome.evaluation.evaluate import evaluate as run

    found = run(
        model=model,
        data=data,
        split=split,
        out=out,
        among=among,
        strands=strands,
        device=device,
        precision=precision,
        batch_size=batch_size,
        overwrite=overwrite,
        progress=make_progress(),
    )
    typer.echo(json.dumps(as_document(found, out)) if as_json else describe(found, out))


def as_document(found: "Evaluation", out: Path) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "out": str(out),
        **found.about,
        "summary": found.summary(),
        "targets": found.table.to_pylist(),
    }


def describe(found: "Evaluation", out: Path) -> str:
    """Return the table by category and, where they are few, the targets."""
    rows = found.table.to_pylist()
    lines = []
    if len(rows) <= _SHOWN:
        width = max(len("target"), *(len(row["name"]) for row in rows))
        lines.append(
            f"{'target':<{width}} {'positives':>10} {'negatives':>10} {'AUROC':>7} {'AUPRC':>7}"
        )
        lines += [
            f"{row['name']:<{width}} {row['positives']:>10,} {row['negatives']:>10,} "
            f"{_number(row['auroc'])} {_number(row['auprc'])}"
            for row in rows
        ]
        lines.append("")
    summary = found.summary()
    width = max(len("category"), *(len(row["category"] or "none") for row in summary))
    lines.append(
        f"{'':<{width}} {'':>8} {'':>8} {'AUROC':>7} {'':>7} {'AUPRC':>7}\n"
        f"{'category':<{width}} {'targets':>8} {'scored':>8} "
        f"{'mean':>7} {'median':>7} {'mean':>7} {'median':>7}"
    )
    for row in summary:
        values = [row[f"{m}_{k}"] for m in ("auroc", "auprc") for k in ("mean", "median")]
        lines.append(
            f"{row['category'] or 'none':<{width}} {row['targets']:>8,} {row['scored']:>8,} "
            + " ".join(map(_number, values))
        )
    about = found.about
    lines.append(
        f"\n{about['rows']:,} windows of {about['split']}, negatives among {about['among']}, "
        f"{about['strands']} strand{'s' if about['strands'] == 'both' else ''}\nwrote {out}"
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:>7.4f}"
