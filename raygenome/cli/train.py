"""`raygenome train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from raygenome.training.run import TrainingRun

_HELP = """Train a model on a packed dataset, by the recipe in a YAML file.

Example: raygenome train configs/basset.yaml --data data --out run

Make the data with `raygenome data build` or `raygenome data import`. The best model so far is in
RUN/model, a model directory that `raygenome score` and `evaluate` take.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(help=_HELP)(train)


def train(
    config: Annotated[Path, typer.Argument(help="The recipe, such as configs/deepsea-fast.yaml.")],
    data: Annotated[str, typer.Option(help="Folder or URL of the dataset.")],
    out: Annotated[str, typer.Option(help="Output folder, or s3://... or gs://...")],
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN-MAX|auto",
            help="Processes that share each batch; 0 is this one, without Ray; auto: one a GPU.",
        ),
    ] = "auto",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model is trained.")
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads of each process; its share of the cores if not said. On a CPU, the "
            "weights are the same bit for bit for the same --workers and --threads."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or HOST:PORT of its head.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Use a cluster also where no token guards it.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run in --out.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove the run in --out and begin again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json.")] = False,
) -> None:
    """Train, with progress on stderr, and say what came of it."""
    from raygenome.cli.score import make_progress
    from raygenome.training.run import train as train_model

    run = train_model(
        config,
        data=data,
        out=out,
        workers=workers,
        device=device,
        threads=threads,
        resume=resume,
        fresh=fresh,
        address=address,
        insecure=insecure,
        progress=make_progress(),
    )
    typer.echo(json.dumps(run.document, indent=1) if as_json else describe(run))


def describe(run: "TrainingRun") -> str:
    """Return the summary that ends a training run."""
    from raygenome.progress.bars import duration

    said = run.document
    lines = [
        f"trained   {said['epochs']:>10,} epochs, {said['steps']:,} steps, "
        f"{said['samples']:,} samples in {duration(said['seconds'])}"
    ]
    best: dict[str, Any] = said["best"]
    scores = [
        f"{key.removeprefix('valid_')} {value:.4f}"
        for key, value in best.items()
        if key != "epoch" and value is not None
    ]
    if scores:
        lines.append(f"best      {'epoch':>10} {best['epoch']}: valid {', '.join(scores)}")
    lines.append(f"wrote     {run.model}   (log.jsonl and curves.png beside it)")
    return "\n".join(lines)
