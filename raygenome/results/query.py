"""Asking a finished run: SQL over its tables in a DuckDB that can do nothing else, and its top.

A statement is let through if it is one SELECT; and the connection it runs on opens the files that
run.json lists and no other, and cannot be unlocked. Nothing can be written: COPY is no SELECT.
"""

import contextlib
import difflib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.errors import DataError, UsageError
from raygenome.results import duck
from raygenome.results.open_run import read_finished, require_finished
from raygenome.results.run_dir import (
    RANKED_TARGETS,
    RANKED_VARIANTS,
    RUN_JSON,
    SKIPPED,
    TARGETS,
    read_run,
)
from raygenome.storage.store import Store

log = logging.getLogger(__name__)

#: View by file; `scores`, and `log_odds` where the run has it, are over the parts.
TABLES = {
    "ranked": RANKED_VARIANTS,
    "ranked_targets": RANKED_TARGETS,
    "skipped": SKIPPED,
    "targets": TARGETS,
}
_SCORE_COLUMNS = {
    "chrom": "VARCHAR",
    "pos": "INTEGER",
    "id": "VARCHAR",
    "ref": "VARCHAR",
    "alt": "VARCHAR",
    "record": "BIGINT",
    "allele": "SMALLINT",
    "score": "FLOAT",
    "top": "STRUCT(target SMALLINT, diff FLOAT)[]",
}
_LONGEST_MESSAGE = 300
_STREAM_ROWS = 2_048


@contextlib.contextmanager
def open_run(path: Path | str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a locked-down DuckDB with the views scores, ranked, ranked_targets, skipped, targets.

    What its queries spill goes to a temporary folder outside the run, removed at the end.

    Raises:
        NoInput: there is no run.
        DataError: the run is unfinished or damaged.
    """
    store = require_finished(path)
    document = read_run(store)
    files = _files(store, document)
    with tempfile.TemporaryDirectory(prefix="raygenome-query-") as scratch:
        try:
            sql = duck.connect_locked(
                temp_dir=Path(scratch),
                store=store,
                files=[store.sql_name(name) for names in files.values() for name in names],
                views=_views(store, files, document),
            )
        except duckdb.Error as error:
            raise DataError(
                f"{path}: a table cannot be opened ({_one_line(error)}); try `raygenome verify`"
            ) from error
        with sql:
            yield sql


def run_sql(path: Path | str, statement: str) -> pa.Table:
    """Return the whole answer of one SELECT over a run's views; for errors see `stream_sql`."""
    with stream_sql(path, statement) as answer:
        return pa.Table.from_batches(list(answer.batches), answer.schema)


class Answer(NamedTuple):
    """The answer of a query: its columns, and its rows, which are made as they are asked for."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextlib.contextmanager
def stream_sql(path: Path | str, statement: str) -> Iterator[Answer]:
    """Give the answer of one SELECT over the views of a run, some rows at a time.

    Raises:
        UsageError: no SELECT, more than one statement, or a mistake in it; also while reading.
        NoInput: there is no run.
        DataError: the run is unfinished or damaged.
    """
    with open_run(path) as sql:
        try:
            reader = sql.sql(_only_select(sql, statement)).to_arrow_reader(_STREAM_ROWS)
            yield Answer(reader.schema, _batches(reader, path))
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except (duckdb.InternalException, duckdb.FatalException):
            raise  # not the user's to mend
        except duckdb.Error as error:
            raise _in_our_words(error, path, sql) from error


def _batches(reader: pa.RecordBatchReader, path: Path | str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a reader; what DuckDB says meanwhile comes through Arrow as these."""
    try:
        yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        said = _one_line(error)
        if ".parquet'" in said:
            raise _damaged(path, said) from error
        raise UsageError(said) from error


def _in_our_words(
    error: duckdb.Error, path: Path | str, sql: duckdb.DuckDBPyConnection
) -> UsageError | DataError:
    said = _one_line(error)
    if isinstance(error, duckdb.PermissionException):
        return UsageError(f"a query reads the run's own tables and no other file ({said})")
    names_a_table = isinstance(error, duckdb.InvalidInputException) and ".parquet'" in said
    if isinstance(error, duckdb.IOException) or names_a_table:
        return _damaged(path, said)
    if isinstance(error, duckdb.ProgrammingError):  # of syntax or names
        return UsageError(f"{said}; there are the tables {_on_offer(sql)}")
    return UsageError(said)


def _damaged(path: Path | str, said: str) -> DataError:
    return DataError(f"{path}: a table cannot be read ({said}); try `raygenome verify`")


def top(path: Path | str, target: str | int | None = None, n: int = 10) -> list[dict[str, Any]]:
    """Return the `n` strongest alleles of a run, by all targets or by one, strongest first.

    Args:
        path: the run directory.
        target: None for the largest effect on any target; else a target's name, in any case, or
            its 0-based index.
        n: how many; a run keeps no more than its --top-n for a single target.

    Returns:
        Rows with rank, chrom, pos (1-based), id, ref, alt, and then score, name and diff (of the
        target most affected), or the diff alone where a target was given.

    Raises:
        UsageError: no such target, or n < 1.
        NoInput: there is no run.
        DataError: the run is unfinished or damaged.
    """
    if n < 1:
        raise UsageError(f"n is {n}; it must be at least 1")
    keys = "rank, chrom, pos, id, ref, alt"
    if target is None:
        statement = f"SELECT {keys}, score, name, diff FROM ranked WHERE rank <= {n} ORDER BY rank"
        return run_sql(path, statement).to_pylist()
    names = run_sql(path, "SELECT name FROM targets ORDER BY target")["name"].to_pylist()
    index = find_target(names, target)
    statement = (
        f"SELECT {keys}, diff FROM ranked_targets "
        f"WHERE target = {index} AND rank <= {n} ORDER BY rank"
    )
    rows = run_sql(path, statement).to_pylist()
    scored = read_finished(path)["counts"]["scored"]
    if len(rows) < min(n, scored):
        log.warning(
            "the run keeps the %d strongest of each target (score --top-n); "
            "`raygenome query` over scores can order them all",
            len(rows),
        )
    return rows


def find_target(names: list[str], target: str | int) -> int:
    """Return the index of the target called, or numbered, `target`.

    Raises:
        UsageError: there is none; the message suggests names like it.
    """
    text = str(target).strip()
    folded = [name.casefold() for name in names]
    if isinstance(target, str) and text.casefold() in folded:
        return folded.index(text.casefold())
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    alike = [name for name in names if text and text.casefold() in name.casefold()]
    alike += [
        names[folded.index(name)]
        for name in difflib.get_close_matches(text.casefold(), folded, n=5, cutoff=0.5)
    ]
    suggestions = ", ".join(dict.fromkeys(alike[:5]))
    raise UsageError(
        f"no target is called {text!r}, and the indices are 0 to {len(names) - 1}; "
        + (f"there is {suggestions}" if suggestions else "see `SELECT * FROM targets`")
    )


def _files(store: Store, document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the files of each view, as run.json lists them.

    Raises:
        DataError: one is missing, or lies outside the run directory.
    """
    files = {"scores": [part["path"] for part in document["parts"]]}
    files |= {view: [name] for view, name in TABLES.items()}
    odds = [file["path"] for file in document["files"] if file.get("dataset") == "log_odds"]
    if odds:
        files["log_odds"] = odds
    there = store.sizes()
    for name in (name for listed in files.values() for name in listed):
        if not store.is_inside(name):
            raise DataError(
                f"{store.shown(RUN_JSON)} lists {store.shown(name)}, which lies outside the run"
            )
        if name not in there:
            raise DataError(
                f"{store.shown(name)} is missing; `raygenome verify` tells what else is"
            )
    return files


def _views(store: Store, files: dict[str, list[str]], document: dict[str, Any]) -> list[str]:
    """Return the CREATE VIEW statements."""
    if not files["scores"]:
        tables = {view: listed for view, listed in files.items() if view != "scores"}
        none = f"CREATE VIEW scores AS {_no_scores(store, document)}"
        return [none, *_views_of(store, tables)]
    return _views_of(store, files)


def _views_of(store: Store, files: dict[str, list[str]]) -> list[str]:
    return [
        f"CREATE VIEW {view} AS FROM {duck.read_parquet([store.sql_name(name) for name in listed])}"
        for view, listed in files.items()
    ]


def _no_scores(store: Store, document: dict[str, Any]) -> str:
    """Return the SELECT of a run that scored nothing: no part is there to say its columns."""
    columns = dict(_SCORE_COLUMNS)
    if document["config"].get("effects") != "top":
        with store.open(TARGETS) as file:
            names = pq.read_table(file, columns=["name"])["name"].to_pylist()
        columns |= {duck.quote(name): "FLOAT" for name in names}
    listed = ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items())
    return f"SELECT {listed} WHERE false"


def _only_select(sql: duckdb.DuckDBPyConnection, statement: str) -> str:
    """Return `statement` if it is one SELECT (or FROM, VALUES, DESCRIBE, SUMMARIZE)."""
    statements = sql.extract_statements(statement)
    if len(statements) != 1:
        raise UsageError(f"one SELECT was needed, {len(statements)} statements were given")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise UsageError(f"only SELECT may be asked of a run; this is {kind.name}")
    return statements[0].query


def _on_offer(sql: duckdb.DuckDBPyConnection) -> str:
    found = sql.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_oid")
    return ", ".join(name for (name,) in found.fetchall())


def _one_line(error: Exception) -> str:
    """Return DuckDB's message without the quoted query, in one line."""
    said = str(error).split("\nLINE ")[0]
    text = " ".join(said.split())
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."
