"""`raygenome query`, `top` and `verify`: asking a finished run."""

import csv
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from raygenome.errors import UsageError

#: Most rows and columns of an answer that are shown on a terminal.
SHOWN_ROWS, SHOWN_COLUMNS = 100, 16

_QUERY = """Ask a run with SQL: one SELECT, read-only, over the run's own tables.

The tables are scores, ranked, ranked_targets, skipped and targets; DESCRIBE scores lists the
columns. A terminal gets a table, anything else CSV.

Example: raygenome query scores "SELECT chrom, pos, ref, alt, score FROM ranked LIMIT 5"
"""
_TOP = """Show the alleles with the strongest effects, on any target or on one.

Example: raygenome top scores --target GM12878_CTCF -n 20
"""
_VERIFY = """Check that a run is whole: every file and byte, and that the counts add up.

Example: raygenome verify scores
"""

Run = Annotated[
    str, typer.Argument(metavar="DIR", help="Run directory of `raygenome score`, or its URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(help=_QUERY)(query)
    app.command(help=_TOP)(top)
    app.command(help=_VERIFY)(verify)


def query(
    directory: Run,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of rows.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, also on a terminal.")] = False,
) -> None:
    """Print the answer of one SELECT."""
    from raygenome.results.query import stream_sql

    with stream_sql(directory, sql) as answer:
        names = answer.schema.names
        rows = _rows(answer)
        if as_json:
            _print_json_rows(names, rows)
        elif as_csv or not sys.stdout.isatty():
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([_csv_cell(value) for value in row] for row in rows)
        else:
            _print_table(names, list(itertools.islice(rows, SHOWN_ROWS + 1)))


def _rows(answer: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an answer; by place, as a SELECT may give two columns one name."""
    for batch in answer.batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _print_json_rows(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Print a JSON array of rows, each as it comes."""
    if len(set(names)) < len(names):
        raise UsageError("two columns have one name, which JSON cannot hold; rename one with AS")
    separator = "["
    for row in rows:
        value = _plain(dict(zip(names, row, strict=True)))
        typer.echo(f"{separator}\n {json.dumps(value, default=str)}", nl=False)
        separator = ","
    typer.echo("[]" if separator == "[" else "\n]")


def top(
    directory: Run,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Name of a target, or its 0-based index.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="How many alleles.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of rows.")] = False,
) -> None:
    """Print the strongest alleles."""
    import raygenome.results.query

    rows = raygenome.results.query.top(directory, target, n)
    if as_json:
        _print_json(rows)
    elif rows:
        _print_table(list(rows[0]), [tuple(row.values()) for row in rows])
    else:
        typer.echo("no allele was scored")


def verify(
    directory: Run,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every page too; slower.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a line for each problem; exit with 65 if there is one."""
    import raygenome.results.verify

    report = raygenome.results.verify.verify(directory, deep=deep)
    if as_json:
        told = {"path": str(report.path), "files": report.files, "bytes": report.bytes}
        _print_json({**told, "problems": report.problems})
    else:
        for problem in report.problems:
            typer.echo(problem)
        count = len(report.problems)
        found = f"{count} problem{'s' * (count > 1)}" if count else "whole"
        typer.echo(f"{report.path}: {found} ({report.files} files, {report.bytes / 1e6:,.1f} MB)")
    if not report.whole:
        raise typer.Exit(65)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(_plain(value), indent=1, default=str))


def _plain(value: object) -> object:
    """Return `value` with nothing in it that JSON has not: no NaN, no decimals."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):  # how a sum of integers comes from DuckDB
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _csv_cell(value: object) -> object:
    """Return a value as CSV holds it: nested ones as JSON."""
    return json.dumps(_plain(value), default=str) if isinstance(value, list | dict) else value


def _print_table(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Print rows in columns, as far as a terminal shows them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    shown = rows[:SHOWN_ROWS]
    for place, name in enumerate(names[:SHOWN_COLUMNS]):
        numbers = all(isinstance(row[place], int | float | Decimal | None) for row in shown)
        table.add_column(escape(name), justify="right" if numbers else "left")
    for row in shown:
        table.add_row(*(escape(_cell(value)) for value in row[:SHOWN_COLUMNS]))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if len(rows) > SHOWN_ROWS or len(names) > SHOWN_COLUMNS:
        more = f"the first {SHOWN_ROWS} rows" if len(rows) > SHOWN_ROWS else f"{len(rows)} rows"
        typer.echo(f"({more} of {len(names)} columns; --csv or --json gives them all)")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
