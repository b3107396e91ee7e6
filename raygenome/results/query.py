"""SQL over the tables of a finished run, and its strongest alleles.

Only a single SELECT is allowed. It runs on a DuckDB connection that can open only the files listed
in run.json, and that cannot be unlocked. Nothing can be written: COPY is not a SELECT.
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
from raygenome.genome.alleles import KEYS, SCORE
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

#: File of each view. Besides these, `scores` (and `log_odds` if the run has it) are over the parts.
TABLES = {
    "ranked": RANKED_VARIANTS,
    "ranked_targets": RANKED_TARGETS,
    "skipped": SKIPPED,
    "targets": TARGETS,
}
_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    SCORE.field("top").type: "STRUCT(target SMALLINT, diff FLOAT)[]",
}
_LONGEST_MESSAGE = 300
_STREAM_ROWS = 2_048


@contextlib.contextmanager
def open_run(path: Path | str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a locked DuckDB with the views scores, ranked, ranked_targets, skipped and targets.

    Queries that need more memory spill to a temporary folder outside the run.

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
                f"{path}: a table cannot be opened ({_one_line(error)})", "try `raygenome verify`"
            ) from error
        with sql:
            yield sql


def run_sql(path: Path | str, statement: str) -> pa.Table:
    """Return the whole result of one SELECT over a run's views; for errors see `stream_sql`."""
    with stream_sql(path, statement) as answer:
        return pa.Table.from_batches(list(answer.batches), answer.schema)


class Answer(NamedTuple):
    """The result of a query: its columns, and its rows, which are computed as they are read."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextlib.contextmanager
def stream_sql(path: Path | str, statement: str) -> Iterator[Answer]:
    """Give the result of one SELECT over the views of a run, some rows at a time.

    Raises:
        UsageError: not a single SELECT, or an error in it; this may also come while reading.
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
            raise  # a bug, not an error of the user
        except duckdb.Error as error:
            raise _translated(error, path, sql) from error


def _batches(reader: pa.RecordBatchReader, path: Path | str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a reader; Arrow raises DuckDB's errors under its own classes."""
    try:
        yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        message = _one_line(error)
        if ".parquet'" in message:
            raise _damaged(path, message) from error
        raise UsageError(message) from error


def _translated(
    error: duckdb.Error, path: Path | str, sql: duckdb.DuckDBPyConnection
) -> UsageError | DataError:
    """Return DuckDB's error as one of ours."""
    message = _one_line(error)
    if isinstance(error, duckdb.PermissionException):
        return UsageError(f"a query can only read the run's own tables ({message})")
    names_a_table = isinstance(error, duckdb.InvalidInputException) and ".parquet'" in message
    if isinstance(error, duckdb.IOException) or names_a_table:
        return _damaged(path, message)
    if isinstance(error, duckdb.ProgrammingError):  # of syntax or names
        return UsageError(message, f"the tables are {_view_names(sql)}")
    return UsageError(message)


def _damaged(path: Path | str, message: str) -> DataError:
    return DataError(f"{path}: a table cannot be read ({message})", "try `raygenome verify`")


def top(path: Path | str, target: str | int | None = None, n: int = 10) -> list[dict[str, Any]]:
    """Return the `n` alleles with the strongest effects, on any target or on one, strongest first.

    Args:
        path: the run directory.
        target: None ranks by the largest effect on any target; otherwise a target's name, in upper
            or lower case, or its 0-based index.
        n: number of alleles; for a single target a run keeps at most its --top-n.

    Returns:
        Rows with rank, chrom, pos (1-based), id, ref and alt, followed by score, and name and diff
        of the target most affected; or by diff alone if `target` was given.

    Raises:
        UsageError: no such target, or n < 1.
        NoInput: there is no run.
        DataError: the run is unfinished or damaged.
    """
    if n < 1:
        raise UsageError(f"n is {n}", "it must be at least 1")
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
            "the run keeps the %d strongest alleles of each target (score --top-n); "
            "to rank all of them use `raygenome query` on scores",
            len(rows),
        )
    return rows


def find_target(names: list[str], target: str | int) -> int:
    """Return the index of the target with this name or index.

    Raises:
        UsageError: there is none; the message suggests similar names.
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
        f"no target is called {text!r}, and the indices are 0 to {len(names) - 1}",
        f"similar names are {suggestions}" if suggestions else "see `SELECT * FROM targets`",
    )


def _files(store: Store, document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the files of each view, as run.json lists them.

    Raises:
        DataError: a file is missing, or lies outside the run directory.
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
                f"{store.shown(name)} is missing", "`raygenome verify` lists all that is missing"
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
    """Return the SELECT of the scores of a run without parts: all columns and no rows."""
    columns = {field.name: _SQL_TYPES[field.type] for field in [*KEYS, *SCORE]}
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
        raise UsageError(f"{len(statements)} statements were given", "give a single SELECT")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise UsageError(f"the statement is {kind.name}", "only SELECT is allowed")
    return statements[0].query


def _view_names(sql: duckdb.DuckDBPyConnection) -> str:
    found = sql.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_oid")
    return ", ".join(name for (name,) in found.fetchall())


def _one_line(error: Exception) -> str:
    """Return DuckDB's message without the quoted query, in one line."""
    text = " ".join(str(error).split("\nLINE ")[0].split())
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."
