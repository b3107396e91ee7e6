"""Ranking: the parts of a run, in one order over the genome and in one for each target.

DuckDB sorts out of core, so memory is bounded whatever the number of alleles. Ties go to the allele
that the plan has first: contig order, position, REF, ALT, record, allele. The bytes written do not
depend on the number of threads nor on the memory given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from raygenome.disk import publish
from raygenome.registry.targets import Target
from raygenome.results import duck, toplist
from raygenome.results.rundir import RunDir, Shard

_COPY = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)"
_KEY_COLUMNS = "chrom, pos, id, ref, alt"
_NO_ALLELES = """(SELECT NULL::VARCHAR AS chrom, NULL::INTEGER AS pos, NULL::VARCHAR AS id,
    NULL::VARCHAR AS ref, NULL::VARCHAR AS alt, NULL::FLOAT AS score,
    NULL::STRUCT(target SMALLINT, diff FLOAT)[] AS top,
    0 AS file_index, 0 AS file_row_number WHERE false)"""


def rank_run(
    run: RunDir,
    shards: Sequence[Shard],
    parts: Sequence[dict[str, Any]],
    *,
    targets: Sequence[Target],
    top_n: int,
) -> None:
    """Publish `ranked/variants.parquet` and `ranked/targets.parquet` of a run that is all scored.

    Args:
        run: the run directory; every shard has left its part and its strongest effects.
        shards: of the plan.
        parts: {path, shard, ...} of each part, as run.json lists them.
        targets: of the model.
        top_n: how many alleles are ranked for each target.
    """
    path_of = {part["shard"]: run.path / part["path"] for part in parts}
    paths = [path_of[shard.index] for shard in shards]
    with (
        duck.storage_errors(f"ranking {run.path}"),
        duck.connect(temp_dir=run.temporary / "duckdb") as sql,
    ):
        temporary = run.temporary_file(run.ranked_variants)
        rank_variants(sql, paths, targets, temporary)
        publish(temporary, run.ranked_variants)

        keys = strongest_of_all([run.top(shard.index) for shard in shards], len(targets), top_n)
        temporary = run.temporary_file(run.ranked_targets)
        rank_targets(sql, paths, [shard.begin for shard in shards], keys, temporary)
        publish(temporary, run.ranked_targets)


def rank_variants(
    sql: duckdb.DuckDBPyConnection, parts: Sequence[Path], targets: Sequence[Target], out: Path
) -> None:
    """Write every allele by falling score: rank, score, its key columns, and its strongest target.

    Args:
        sql: of `duck.connect`.
        parts: the score parts, in the plan's order.
        targets: of the model; they name the strongest.
        out: the file to write, not published by us.
    """
    names = ", ".join(duck.literal(target.name) for target in targets)
    sql.execute(f"""
        COPY (
            SELECT row_number() OVER () AS rank, score, {_KEY_COLUMNS},
                strongest.target AS target, [{names}][strongest.target + 1] AS name,
                strongest.diff AS diff
            FROM (
                SELECT score, {_KEY_COLUMNS}, top[1] AS strongest FROM {_alleles(parts)}
                ORDER BY score DESC, file_index, file_row_number
            )
        ) TO {duck.literal(str(out))} {_COPY}
    """)


def strongest_of_all(tops: Sequence[Path], targets: int, top_n: int) -> np.ndarray:
    """Return the keys (targets, up to top_n) of the strongest effects of each target, descending.

    Args:
        tops: a .npy a shard, uint64 (targets, m) keys of `toplist`; read one at a time.
        targets: how many.
        top_n: how many to keep of each.
    """
    best = np.empty((targets, 0), dtype=np.uint64)
    for path in tops:
        best = toplist.merge(best, np.load(path, allow_pickle=False), top_n)
    return best


def rank_targets(
    sql: duckdb.DuckDBPyConnection,
    parts: Sequence[Path],
    starts: Sequence[int],
    keys: np.ndarray,
    out: Path,
) -> None:
    """Write the strongest alleles of each target: target, rank, the key columns, diff.

    Args:
        sql: of `duck.connect`.
        parts: the score parts, in the plan's order.
        starts: the number, in the plan, of each part's first row.
        keys: of `strongest_of_all`.
        out: the file to write, not published by us.
    """
    diff, rows = toplist.decode(keys)
    count = keys.shape[1]
    winners = {
        "target": np.repeat(np.arange(len(keys), dtype=np.int16), count),
        "rank": np.tile(np.arange(1, count + 1, dtype=np.int32), len(keys)),
        "diff": diff.ravel(),
        "row": rows.ravel(),
    }
    # Only the parts that hold a winner are read; `starts` is empty where there are no alleles.
    holding = np.unique(np.searchsorted(starts, rows.ravel(), side="right") - 1)
    first_rows = ", ".join(str(starts[part]) for part in holding)
    sql.register("winners", pa.table(winners))
    sql.execute(f"""
        COPY (
            SELECT target, rank, {_KEY_COLUMNS}, diff
            FROM winners JOIN (
                SELECT {_KEY_COLUMNS},
                    ([{first_rows}]::BIGINT[])[file_index::BIGINT + 1] + file_row_number AS "row"
                FROM {_alleles([parts[part] for part in holding])}
            ) USING ("row")
            ORDER BY target, rank
        ) TO {duck.literal(str(out))} {_COPY}
    """)
    sql.unregister("winners")


def _alleles(parts: Sequence[Path]) -> str:
    """Return the rows of `parts` as a SQL table, with the virtual file_index, file_row_number."""
    return duck.read_parquet(parts) if parts else _NO_ALLELES
