"""`raygenome query`, `top` and `verify`: reading a finished run."""

import csv
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from raygenome.cli.options import AsCsv, AsJson, Command
from raygenome.cli.tables import print_table
from raygenome.errors import UsageError

#: Most rows of an answer of `query` that a terminal gets.
SHOWN_ROWS = 100

_QUERY = """Query a run with SQL: one SELECT, read-only.

The tables are scores, ranked, ranked_targets, skipped and targets; "DESCRIBE scores" lists the
columns of one. On a terminal the answer is a table, elsewhere CSV.

\b
Example: raygenome query scores \\
    "SELECT chrom, pos, ref, alt, score FROM ranked LIMIT 5"
"""
_TOP = """Show the alleles with the strongest effects.

The effect of an allele is the largest over all targets, or the one on --target.

Example: raygenome top scores --target GM12878_CTCF -n 20
"""
_VERIFY = """Check that a run is complete and undamaged.

Every file is compared with its SHA-256 in run.json, and the counts have to add up. Exits with 65
where there is a problem.

Example: raygenome verify scores
"""

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Output folder of `raygenome score`, or its URL.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(cls=Command, help=_QUERY)(query)
    app.command(cls=Command, help=_TOP)(top)
    app.command(cls=Command, help=_VERIFY)(verify)


def query(
    directory: Run,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement.")],
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the answer of one SELECT."""
    from raygenome.results.query import stream_sql

    with stream_sql(directory, sql) as answer:
        names = answer.schema.names
        rows = _rows(answer)
        if as_json:
            _print_json_rows(names, rows)
        elif as_csv or not sys.stdout.isatty():
            _print_csv(names, rows)
        else:
            shown = list(itertools.islice(rows, SHOWN_ROWS))
            _print_rows(names, shown)
            if next(rows, None) is not None:
                typer.echo(f"(the first {SHOWN_ROWS} rows; --csv or --json prints all)", err=True)


def _rows(answer: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an answer as tuples, since two columns of a SELECT may share a name."""
    for batch in answer.batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _print_json_rows(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Print a JSON array of rows, one at a time."""
    if len(set(names)) < len(names):
        raise UsageError("two columns have one name, which JSON cannot hold", "rename one with AS")
    separator = "["
    for row in rows:
        value = _plain(dict(zip(names, row, strict=True)))
        typer.echo(f"{separator}\n {json.dumps(value, default=str)}", nl=False)
        separator = ","
    typer.echo("[]" if separator == "[" else "\n]")


def _print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)


def top(
    directory: Run,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="NAME", help="A target's name or 0-based index."),
    ] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="How many alleles.")] = 10,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the strongest alleles."""
    import raygenome.results.query

    rows = raygenome.results.query.top(directory, target, n)
    if as_json:
        _print_json(rows)
    elif not rows:
        typer.echo("no allele was scored", err=as_csv)
    elif as_csv:
        _print_csv(list(rows[0]), [tuple(row.values()) for row in rows])
    else:
        spare = ["score", "rank", "id"]  # score is |diff|, and the rows are in order
        _print_rows(list(rows[0]), [tuple(row.values()) for row in rows], spare)


def verify(
    directory: Run,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also decode every page of every Parquet file; slower.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a line for each problem; exit with 65 if there is one."""
    import raygenome.results.verify

    report = raygenome.results.verify.verify(directory, deep=deep)
    if as_json:
        facts = {"path": str(report.path), "files": report.files, "bytes": report.bytes}
        _print_json({**facts, "problems": report.problems})
    else:
        for problem in report.problems:
            typer.echo(problem)
        count = len(report.problems)
        found = f"{count} problem{'s' * (count > 1)}" if count else "OK"
        typer.echo(f"{report.path}: {found} ({report.files} files, {report.bytes / 1e6:,.1f} MB)")
    if not report.whole:
        raise typer.Exit(65)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(_plain(value), indent=1, default=str))


def _plain(value: object) -> object:
    """Return `value` without what JSON cannot hold, such as NaN and decimals."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):  # DuckDB's sum of integers
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _csv_cell(value: object) -> object:
    """Return a value for CSV; nested ones as JSON."""
    return json.dumps(_plain(value), default=str) if isinstance(value, list | dict) else value


def _print_rows(
    names: Sequence[str], rows: Sequence[Sequence[Any]], spare: Sequence[str] = ()
) -> None:
    """Print alleles or other rows as a table."""
    nested = [
        name
        for at, name in enumerate(names)
        if any(isinstance(row[at], list | dict) for row in rows)
    ]
    print_table(
        names,
        rows,
        wrap=["ref", "alt", *nested],
        spare=spare,
        everything="--csv or --json prints all",
    )
