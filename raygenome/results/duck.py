"""DuckDB connections, the one place that sets them up: in memory, bounded, spilling where told."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from raygenome.errors import StorageError
from raygenome.storage.object_store import ObjectStore
from raygenome.storage.store import OBJECTS as _OBJECTS
from raygenome.storage.store import Store

#: What DuckDB may hold before it spills: enough to sort tens of millions of rows in few passes.
MEMORY_LIMIT = "2GB"
#: More threads than this would each get too little of that memory.
MAX_THREADS = 8


def connect(
    *,
    temp_dir: Path,
    store: Store | None = None,
    memory_limit: str = MEMORY_LIMIT,
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """Return a connection to a new database in memory, for our own statements; close it after use.

    Args:
        temp_dir: the folder, made here, for what does not fit into memory.
        store: whose files it reads, by their `sql_name`.
        memory_limit: most memory that DuckDB takes, as it spells it ("2GB").
        threads: how many; None takes one a core, up to MAX_THREADS.
    """
    sql = _connect(temp_dir, store, memory_limit, threads)
    # Else DuckDB writes a column as not null where its source's statistics happen to say so.
    sql.execute("SET disabled_optimizers = 'statistics_propagation'")
    return sql


def connect_locked(
    *,
    temp_dir: Path,
    store: Store,
    files: Sequence[str],
    views: Sequence[str],
    memory_limit: str = MEMORY_LIMIT,
) -> duckdb.DuckDBPyConnection:
    """Return a connection for statements of others: it opens `files` and no other, for good.

    Args:
        temp_dir: the folder, made here, for what does not fit into memory.
        store: where they lie.
        files: the files it may open, by their `sql_name`.
        views: CREATE VIEW statements, run before the lock.
        memory_limit: most memory that DuckDB takes.
    """
    sql = _connect(temp_dir, store, memory_limit, None)
    for view in views:
        sql.execute(view)
    # A name is checked twice, as the pattern it is written as and as the file that it matches.
    allowed = ", ".join(sorted(set(map(literal, files)) | set(map(_exactly, files))))
    sql.execute(f"SET allowed_paths = [{allowed}]")
    sql.execute("SET enable_external_access = false")
    sql.execute("SET lock_configuration = true")
    return sql


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Say in one line what DuckDB says of a full disk or too little memory.

    Raises:
        StorageError: DuckDB could not do what `doing` names.
    """
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise StorageError(
            f"{doing} failed: {str(error).splitlines()[0]}; what is committed stays: "
            "free some space and run again with --resume"
        ) from error


def quote(name: str) -> str:
    """Return `name` as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def read_parquet(files: Sequence[str]) -> str:
    """Return the SQL of the rows of `files`, by their `sql_name`, one after the other.

    A row's chrom is read from the file: taken from the name of its folder it could be a number.
    """
    listed = ", ".join(map(_exactly, files))
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _exactly(name: str) -> str:
    """Return the SQL of a name that matches itself alone: unquoted, `run[1]` would read `run1`."""
    if name.startswith(_OBJECTS):
        return literal(name)  # our own filesystem takes every name as it is
    return literal("".join(f"[{c}]" if c in "*?[" else c for c in name))


def _objects(store: ObjectStore) -> Any:
    """Return the filesystem of a store as DuckDB takes one, under names of `Store.sql_name`."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    class Objects(ArrowFSWrapper):
        protocol = _OBJECTS.removesuffix("://")
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix(_OBJECTS)

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]  # runs are read by names, and a name may have a [ in it

    return Objects(store.bucket.filesystem)


def _connect(
    temp_dir: Path, store: Store | None, memory_limit: str, threads: int | None
) -> duckdb.DuckDBPyConnection:
    temp_dir.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(temp_dir),
        "threads": threads or min(os.cpu_count() or 1, MAX_THREADS),
        "preserve_insertion_order": True,
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    sql = duckdb.connect(":memory:", config=config)
    # It would go to standard output, among the answers, once a query takes two seconds.
    sql.execute("SET enable_progress_bar = false")
    if isinstance(store, ObjectStore):
        sql.register_filesystem(_objects(store))
    return sql
