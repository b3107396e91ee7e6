"""DuckDB connections for queries: in memory, bounded, spilling to a given folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from raygenome.storage.object_store import ObjectStore
from raygenome.storage.store import OBJECTS as _OBJECTS
from raygenome.storage.store import Store

#: What DuckDB may hold before it spills: enough to sort tens of millions of rows in few passes.
_MEMORY_LIMIT = "2GB"
#: More threads than this would each get too little of that memory.
_MAX_THREADS = 8


def connect_locked(
    *,
    temp_dir: Path,
    store: Store,
    files: Sequence[str],
    views: Sequence[str],
) -> duckdb.DuckDBPyConnection:
    """Return a connection for statements of others: it opens `files` and no other, for good.

    Args:
        temp_dir: the folder, made here, for what does not fit into memory.
        store: where they lie.
        files: the files it may open, by their `sql_name`.
        views: CREATE VIEW statements, run before the lock.
    """
    temp_dir.mkdir(parents=True, exist_ok=True)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY_LIMIT,
        "temp_directory": str(temp_dir),
        "threads": min(os.cpu_count() or 1, _MAX_THREADS),
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
    for view in views:
        sql.execute(view)
    # A name is checked twice, as the pattern it is written as and as the file that it matches.
    allowed = ", ".join(sorted(set(map(literal, files)) | set(map(_exactly, files))))
    sql.execute(f"SET allowed_paths = [{allowed}]")
    sql.execute("SET enable_external_access = false")
    sql.execute("SET lock_configuration = true")
    return sql


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
