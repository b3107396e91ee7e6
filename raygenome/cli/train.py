"""`raygenome train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raygenome.cli.options import (
    AsJson,
    Command,
    Data,
    Device,
    Insecure,
    OutPlace,
    RayAddress,
    Resume,
)
from raygenome.cli.progress import make_progress

if TYPE_CHECKING:
    from raygenome.training.run import TrainingRun

_HELP = """Train a model on a dataset, as a YAML file says.

`raygenome data build` and `raygenome data import` make a dataset. The best model so far is in
RUN/model, a model directory for `raygenome score` and `raygenome evaluate`.

Example: raygenome train configs/basset.yaml --data data --out run
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=Command, help=_HELP)(train)


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/basset.yaml.")
    ],
    data: Data,
    out: OutPlace,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN-MAX|auto",
            help="Processes that share each batch; 0: this process, without Ray; auto: one per "
            "GPU.",
        ),
    ] = "auto",
    device: Device = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="CPU threads per process. On a CPU, the same --workers and --threads give the "
            "same weights, bit for bit. [default: an equal share of the cores]",
        ),
    ] = None,
    address: RayAddress = None,
    insecure: Insecure = False,
    resume: Resume = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the run in --out, then start.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train with progress on stderr; print a summary, or run.json."""
    given: dict[str, Any] = dict(locals())  # the library's parameters have the same names
    del given["as_json"]
    from raygenome.training import run as training

    run = training.train(**given, progress=make_progress())
    typer.echo(json.dumps(run.document, indent=1) if as_json else describe(run))


def describe(run: "TrainingRun") -> str:
    """Return the summary that ends a training run."""
    from raygenome.progress.bars import duration

    document = run.document
    epochs = document["epochs"]
    lines = [
        f"trained   {epochs:>10,} epoch{'s' * (epochs != 1)}, {document['steps']:,} steps, "
        f"{document['samples']:,} samples in {duration(document['seconds'])}"
    ]
    best: dict[str, Any] = document["best"]
    scores = [
        f"{key.removeprefix('valid_')} {value:.4f}"
        for key, value in best.items()
        if key != "epoch" and value is not None
    ]
    if scores:
        lines.append(f"best      {'epoch':>10} {best['epoch']}: valid {', '.join(scores)}")
    lines.append(f"wrote     {run.model}   (log.jsonl and curves.png beside it)")
    return "\n".join(lines)
