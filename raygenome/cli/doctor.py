"""`raygenome doctor`."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raygenome.doctor.finding import Finding

_HELP = """Look for what would go wrong: versions, open clusters, GPU, disk, genome, model.

A few variants are scored in each way this machine can, which must give the same numbers. Exits
with 1 where there is a problem, else with 0. The token that is
set here is shown to the cluster that --address says, to no other, and is never printed.

Example: raygenome doctor --fasta hg38.fa --model deepsea --out scores
"""

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "skipped": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(help=_HELP)(doctor)


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to look at. [default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS]"),
    ] = None,
    fasta: Annotated[
        str | None, typer.Option(envvar="RAYGENOME_FASTA", help="A genome to look at.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of a model, or a model directory. [default: demo]")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where a run would go. [default: here]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a line for each finding, and how many of them are problems."""
    import dataclasses

    from raygenome.doctor.doctor import examine

    findings = list(examine(address=address, fasta=fasta, model=model, out=out))
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        typer.echo(json.dumps({"problems": problems, "findings": rows}, indent=1))
    else:
        _print_table(findings)
        typer.echo(f"{problems} problem{'s' * (problems != 1)} found")
    if problems:
        raise typer.Exit(1)


def _print_table(findings: Iterable["Finding"]) -> None:
    """Print findings in columns; on a terminal they wrap, elsewhere each is a line."""
    if not sys.stdout.isatty():
        for finding in findings:
            told = f"{finding.found}; {finding.do}" if finding.do else finding.found
            typer.echo(f"{finding.level:<8} {finding.check:<14} {told}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        words = Text(finding.found)
        if finding.do:
            words.append(f"\n{finding.do}", style="italic")
        table.add_row(Text(finding.level, _STYLES[finding.level]), Text(finding.check), words)
    Console().print(table)
