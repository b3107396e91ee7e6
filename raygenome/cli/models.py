"""`raygenome models`: list, show, pull, import, init."""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from raygenome.registry.registry import ModelSpec

app = typer.Typer(help="Get, make and look at models.", no_args_is_help=True, rich_markup_mode=None)

#: What a row of `list --json` holds, in order.
ROW = ("name", "architecture", "targets", "window", "weights_sha256", "source", "licence")

Name = Annotated[str, typer.Argument(help="What the registry calls the model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.")]


@app.command(
    "list",
    help="List the models that can be named in --model.\n\nExample: raygenome models list --json",
)
def list_(as_json: AsJson = False) -> None:
    """Print a row a model."""
    from raygenome.registry import registry

    specs = registry.list_models()
    if as_json:
        typer.echo(json.dumps([_row(spec) for spec in specs], indent=2))
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "architecture", "targets", "window", "licence", "source", box=None)
    for spec in specs:
        cells = (spec.name, spec.architecture, str(spec.targets), f"{spec.window} bp")
        table.add_row(*map(escape, (*cells, spec.licence, spec.source)))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command(
    help="Say what a model is.\n\nNAME is a name in the registry or a model directory.\n\n"
    "Example: raygenome models show demo"
)
def show(name: Name, as_json: AsJson = False) -> None:
    """Print everything model.json says, and the targets by category."""
    from raygenome.registry.model import Model

    model = Model.open(name)
    categories = Counter(target.category or "none" for target in model.targets)
    facts: dict[str, Any] = {
        **dataclasses.asdict(model.spec),
        "directory": str(model.directory),
        "categories": dict(categories),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{key:<15} {text}")


@app.command(
    help="Download published weights, check their md5 and import them.\n\n"
    "NAME is deepsea (211 MB, CC-BY 3.0), deepsea-predict (the same weights) or basset "
    "(17 MB, MIT).\n\nExample: raygenome models pull deepsea"
)
def pull(name: Name, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Download, check and import, with a progress bar on a terminal."""
    from raygenome.registry import published

    with _bar() as progress:
        spec = published.pull(name, overwrite=overwrite, progress=progress)
    _report("pulled", spec, as_json)


@app.command(
    "import",
    help="Make a model from a Kipoi checkpoint (.pth) of DeepSEA or Basset.\n\n"
    "Example: raygenome models import deepsea deepsea_predict.pth --architecture deepsea",
)
def import_(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The checkpoint; no code in it is run.")],
    architecture: Annotated[
        str | None, typer.Option(help="basset or deepsea. [default: told by its layers]")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import a checkpoint file."""
    from raygenome.registry import checkpoints

    spec = checkpoints.import_checkpoint(name, file, architecture, overwrite=overwrite)
    _report("imported", spec, as_json)


@app.command(
    help="Make a model of random weights, for tests and benchmarks.\n\n"
    "Example: raygenome models init random --architecture basset --seed 0"
)
def init(
    name: Name,
    architecture: Annotated[str, typer.Option(help="basset or deepsea.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make random weights."""
    from raygenome.registry import registry

    spec = registry.init_model(name, architecture, seed, overwrite=overwrite)
    _report("made", spec, as_json)


def _row(spec: "ModelSpec") -> dict[str, object]:
    return {key: getattr(spec, key) for key in ROW}


def _report(done: str, spec: "ModelSpec", as_json: bool) -> None:
    """Print the model that a command made: a row of JSON, or a line."""
    if as_json:
        typer.echo(json.dumps(_row(spec), indent=2))
        return
    typer.echo(
        f"{done} {spec.name}: {spec.architecture}, {spec.targets} targets, "
        f"window {spec.window} bp, licence {spec.licence}, source {spec.source}"
    )


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what draws a download's progress on a terminal; None where stderr is none."""
    if not sys.stderr.isatty():
        yield None
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("download", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
