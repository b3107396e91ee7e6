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

from raygenome.cli.options import AsJson, Command, Seed
from raygenome.cli.tables import print_table
from raygenome.models import ARCHITECTURES, PUBLISHED

if TYPE_CHECKING:
    from raygenome.registry.registry import ModelSpec

app = typer.Typer(help="Get, make and show models.", no_args_is_help=True, rich_markup_mode=None)

#: What a row of `list --json` holds, in order.
ROW = ("name", "architecture", "targets", "window", "weights_sha256", "source", "licence")

_NETS = ", ".join(ARCHITECTURES)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.")]


@app.command(
    "list",
    cls=Command,
    help="List the models that --model can name.\n\nExample: raygenome models list --json",
)
def list_(as_json: AsJson = False) -> None:
    """Print one row per model."""
    from raygenome.registry import registry

    specs = registry.list_models()
    if as_json:
        typer.echo(json.dumps([_row(spec) for spec in specs], indent=2))
        return

    names = ["name", "architecture", "targets", "window", "licence", "source"]
    rows = [
        (spec.name, spec.architecture, spec.targets, f"{spec.window} bp", spec.licence, spec.source)
        for spec in specs
    ]
    print_table(names, rows, wrap=["source"])


@app.command(
    cls=Command,
    help="Show a model: window, targets, source, licence.\n\nExample: raygenome models show demo",
)
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="Name of a model, or its directory.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print the content of model.json, and the number of targets by category."""
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
    cls=Command,
    help="Download published weights, check their md5 and import them.\n\n"
    "NAME is one of: "
    + ", ".join(f"{n} ({file.size / 1e6:.0f} MB, {file.licence})" for n, file in PUBLISHED.items())
    + ".\n\nExample: raygenome models pull deepsea",
)
def pull(name: Name, overwrite: Replace = False, as_json: AsJson = False) -> None:
    """Download, check and import, with a progress bar on a terminal."""
    from raygenome.registry import published

    with _bar() as progress:
        spec = published.pull(name, overwrite=overwrite, progress=progress)
    _report("pulled", spec, as_json)


@app.command(
    "import",
    cls=Command,
    help="Make a model from a Kipoi checkpoint (.pth) of a published net.\n\n"
    "\b\nExample: raygenome models import deepsea deepsea_predict.pth \\\n"
    "    --architecture deepsea",
)
def import_(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The checkpoint; no code in it is run.")
    ],
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{_NETS}. [default: detected from the layers]"),
    ] = None,
    overwrite: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Import a checkpoint file."""
    from raygenome.registry import checkpoints

    spec = checkpoints.import_checkpoint(name, file, architecture, overwrite=overwrite)
    _report("imported", spec, as_json)


@app.command(
    cls=Command,
    help="Make a model with random weights, for tests and benchmarks.\n\n"
    "Example: raygenome models init random --architecture basset --seed 0",
)
def init(
    name: Name,
    architecture: Annotated[str, typer.Option(metavar="NAME", help=f"{_NETS}.")],
    seed: Seed = 0,
    overwrite: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Make random weights."""
    from raygenome.registry import registry

    spec = registry.init_model(name, architecture, seed, overwrite=overwrite)
    _report("made", spec, as_json)


def _row(spec: "ModelSpec") -> dict[str, object]:
    return {key: getattr(spec, key) for key in ROW}


def _report(done: str, spec: "ModelSpec", as_json: bool) -> None:
    """Print the new model as one line, or as JSON."""
    if as_json:
        typer.echo(json.dumps(_row(spec), indent=2))
        return
    typer.echo(
        f"{done} {spec.name}: {spec.architecture}, {spec.targets} targets, "
        f"window {spec.window} bp, licence {spec.licence}, source {spec.source}"
    )


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (bytes done, bytes in all) that draws a bar; None without a terminal."""
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
