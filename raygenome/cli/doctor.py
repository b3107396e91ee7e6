"""`raygenome doctor`."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from raygenome.cli.options import AsJson, Command
from raygenome.cli.tables import print_table

if TYPE_CHECKING:
    from raygenome.doctor.finding import Finding

_HELP = """Check this machine, a cluster, a genome and a model.

It looks at versions, open Ray clusters, GPU, disk, FASTA and weights. A few variants are scored by
each engine and device of this machine; the numbers must agree. Exits with 1 if there is a problem.
Your Ray token is sent to the cluster in --address only, and is never printed.

Example: raygenome doctor --fasta hg19.fa --model deepsea --out scores
"""

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red", "skipped": "bright_black"}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(cls=Command, help=_HELP)(doctor)


def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster to check. [default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS]",
        ),
    ] = None,
    fasta: Annotated[
        str | None,
        typer.Option(metavar="FILE", envvar="RAYGENOME_FASTA", help="Genome to check."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Model to check. [default: demo]")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of a future run. [default: here]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a line for each finding, and the number of problems."""
    import dataclasses

    from raygenome.doctor.doctor import examine

    findings = list(examine(address=address, fasta=fasta, model=model, out=out))
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        typer.echo(json.dumps({"problems": problems, "findings": rows}, indent=1))
    else:
        _print_findings(findings)
        typer.echo(f"{problems} problem{'s' * (problems != 1)} found")
    if problems:
        raise typer.Exit(1)


def _print_findings(findings: Sequence["Finding"]) -> None:
    """Print one row per finding; what to do is a line of its own on a terminal."""
    between = "\n" if sys.stdout.isatty() else "; "
    rows = [(f.level, f.check, between.join(filter(None, (f.found, f.do)))) for f in findings]
    print_table(
        ["level", "check", "finding"], rows, header=False, wrap=["finding"], colours=_COLOURS
    )
