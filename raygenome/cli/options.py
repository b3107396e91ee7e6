"""The options that several commands share, each declared once, and how help shows a command."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperArgument, TyperCommand

# What goes in and out

Model = Annotated[
    str,
    typer.Option(metavar="NAME|DIR", help="A name from `raygenome models list`, or a directory."),
]
Fasta = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        envvar="RAYGENOME_FASTA",
        help="Genome as FASTA, plain or bgzipped.",
    ),
]
Data = Annotated[str, typer.Option(metavar="DIR", help="Dataset of `raygenome data`, or its URL.")]
OutPlace = Annotated[
    str, typer.Option(metavar="DIR|URL", help="Output folder, or s3://... or gs://...")
]
OutFolder = Annotated[Path, typer.Option(metavar="DIR", help="Output folder.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Random seed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, even on a terminal.")]

# What happens to an earlier result

Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete the earlier result in --out, then start.")
]

# How the model is computed

Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute; auto: a GPU if any.")
]
Precision = Annotated[
    Literal["fp32", "tf32", "bf16"], typer.Option(help="Arithmetic; tf32 needs a GPU.")
]
Strands = Annotated[
    Literal["both", "forward"], typer.Option(help="Average both strands, or forward only.")
]

# Ray

RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="Ray cluster to use, by the address of its head. [default: $RAY_ADDRESS, else a "
        "private one]",
    ),
]
Dashboard = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Dashboard of the Ray cluster. [default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, or "
        "http://127.0.0.1:8265]",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow a cluster without token authentication.")
]


def _no_type(ctx: Any) -> None:
    """Return the type that the help shows beside an argument: none."""


class Command(TyperCommand):
    """A command whose help shows an argument as VCF, where typer shows {VCF} and VCF <str>."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = _no_type  # type: ignore[method-assign]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without typer's braces around what is required."""
        return [
            piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)
        ]
