"""DuckDB connections for queries: in memory, bounded, spilling to a given folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from raygenome.storage.object_store import ObjectStore
from raygenome.storage.store import OBJECTS as _OBJECTS
from raygenome.storage.store import Store

#: Memory that DuckDB may take before it spills.
_MEMORY_LIMIT = "2GB"
#: With more threads each would get too little of that memory.
_MAX_THREADS = 8


def connect_locked(
    *,
    temp_dir: Path,
    store: Store,
    files: Sequence[str],
    views: Sequence[str],
) -> duckdb.DuckDBPyConnection:
    """Return a connection for statements of users: it can only ever open `files`.

    Args:
        temp_dir: folder for what does not fit into memory; it is made if needed.
        store: the store of the files.
        files: the `sql_name` of each file that it may open.
        views: CREATE VIEW statements, which run before the connection is locked.
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
    # After two seconds it would appear on standard output, among the answers.
    sql.execute("SET enable_progress_bar = false")
    if isinstance(store, ObjectStore):
        sql.register_filesystem(_objects(store))
    for view in views:
        sql.execute(view)
    # DuckDB checks each name twice: as a pattern, and as the file that the pattern matches.
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
    """Return the SQL of the rows of `files`, given by their `sql_name`, one file after the other.

    The column chrom is read from the files: taken from a folder's name it could become a number.
    """
    listed = ", ".join(map(_exactly, files))
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _exactly(name: str) -> str:
    """Return the SQL of a name that matches only itself: as a pattern, `run[1]` matches `run1`."""
    if name.startswith(_OBJECTS):
        return literal(name)  # our own filesystem knows no patterns
    return literal("".join(f"[{c}]" if c in "*?[" else c for c in name))


def _objects(store: ObjectStore) -> Any:
    """Return an fsspec filesystem, for DuckDB, that opens files by their `sql_name`."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    class Objects(ArrowFSWrapper):
        protocol = _OBJECTS.removesuffix("://")
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix(_OBJECTS)

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path]  # no patterns: a name may have a [ in it

    return Objects(store.bucket.filesystem)
