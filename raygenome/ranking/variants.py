"""The ranking of all alleles: the summaries of shards, and sorting millions of rows.

A summary is a small Parquet file beside a part: 15 bytes per allele, where the part's keys, scores
and lists of strongest targets take 100 and its footer hundreds of kB. So ranking opens no part.

Sorting looks at one column alone, `key`, the largest first. `summarise` makes it: to rank by
another value, make other keys there.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.cluster.hardware import cores
from raygenome.genome.alleles import RANKED_VARIANTS, SUMMARY, Shard, select
from raygenome.genome.targets import Target
from raygenome.ranking import external_sort, sort_keys
from raygenome.ranking.external_sort import MAX_THREADS, ahead

#: Summaries whose keys are read once more, for the sample of the external sort.
_SAMPLED = 64
_ROW_GROUP = 65_536


def summarise(keys: pa.Table, strongest: np.ndarray, first_row: int) -> pa.Table:
    """Return the summary of a shard's alleles: SUMMARY.

    Args:
        keys: the key columns of its part.
        strongest: uint64 (n,), the first key of each row of `sort_keys.strongest`.
        first_row: the number, in the plan, of the first row.
    """
    diff, target = sort_keys.decode(strongest)
    rows = np.arange(first_row, first_row + len(diff))
    columns = {
        "key": pa.array(sort_keys.encode(diff, rows)),
        "target": pa.array(target, pa.int16()),
    }
    return select(SUMMARY, columns, keys)


def write_summary(path: Path, summary: pa.Table) -> None:
    """Write a summary; the caller publishes it."""
    pq.write_table(
        summary,
        path,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=["chrom", "ref", "alt"],
        store_schema=False,
    )


def rank_variants(
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    targets: Sequence[Target],
    out: Path,
    scratch: Path,
) -> None:
    """Write every allele, the highest score first: RANKED_VARIANTS.

    Equal scores are in the plan's order. The bytes do not depend on the number of threads.

    Args:
        shards: of the plan.
        summary_of: returns the path of a shard's summary, or the opened file; called in threads,
            once per shard and once more for some.
        targets: of the model; they name the strongest.
        out: the file to write; the caller publishes it.
        scratch: a file that is written and removed: some 50 bytes per allele.
    """

    def read(group: list[Shard]) -> pa.Table:
        return pa.concat_tables(
            pq.read_table(summary_of(shard), use_threads=False) for shard in group
        )

    ordered = external_sort.external_sort(
        _groups(shards),
        read,
        _descending,
        lambda table: table.take(pa.array(np.argsort(_descending(table)))).combine_chunks(),
        schema=SUMMARY,
        rows=sum(shard.rows for shard in shards),
        sample=_sample(shards, summary_of),
        scratch=scratch,
    )
    names = pa.array([target.name for target in targets], pa.string())
    with closing(ordered), _RankedWriter(out, names) as ranked:
        for alleles in ordered:
            ranked.append(alleles)


def pick_rows(
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    rows: np.ndarray,
) -> pa.Table:
    """Return the summaries of the alleles `rows`, numbers in the plan, in that order.

    Only the shards that hold one of them are read, each once.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    edges = np.searchsorted(wanted, [shard.begin for shard in shards] + [sort_keys.MAX_ROWS])

    def pick(index: int) -> pa.Table:
        inside = wanted[edges[index] : edges[index + 1]] - shards[index].begin
        return pq.read_table(summary_of(shards[index])).take(pa.array(inside))

    holding = np.flatnonzero(np.diff(edges)).tolist()
    with ThreadPoolExecutor(min(cores(), MAX_THREADS)) as pool:
        found = pa.concat_tables([SUMMARY.empty_table(), *ahead(pool, pick, holding)])
    return found.combine_chunks().take(pa.array(place))


def _descending(summary: pa.Table) -> np.ndarray:
    """Return an integer per row, uint64 (n,), the smaller the larger its `key` is."""
    return ~summary["key"].to_numpy()


def _sample(shards: Sequence[Shard], summary_of: Callable[[Shard], Any]) -> np.ndarray:
    """Return the sort integers of the alleles of some shards."""

    def keys_of(shard: Shard) -> np.ndarray:
        return _descending(pq.read_table(summary_of(shard), columns=["key"]))

    chosen = shards[:: max(-(-len(shards) // _SAMPLED), 1)]
    with ThreadPoolExecutor(min(cores(), MAX_THREADS)) as pool:
        return np.concatenate([np.empty(0, np.uint64), *pool.map(keys_of, chosen)])


def _groups(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Yield the shards in groups of about a bucket's rows."""
    group: list[Shard] = []
    rows = 0
    for shard in shards:
        group.append(shard)
        rows += shard.rows
        if rows >= external_sort.BUCKET:
            yield group
            group, rows = [], 0
    if group:
        yield group


class _RankedWriter:
    """Writes ranked alleles in row groups of one size, wherever buckets end; a context manager."""

    def __init__(self, out: Path, names: pa.Array) -> None:
        self._names = names
        self._waiting = RANKED_VARIANTS.empty_table()
        self._rank = 1
        self._writer = pq.ParquetWriter(
            out,
            RANKED_VARIANTS,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["chrom", "ref", "alt", "target", "name"],
            store_schema=False,
        )

    def __enter__(self) -> "_RankedWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        self._writer.close()

    def append(self, alleles: pa.Table) -> None:
        """Add the next alleles: SUMMARY rows."""
        diff, _ = sort_keys.decode(alleles["key"].to_numpy())
        columns = {
            "rank": pa.array(np.arange(self._rank, self._rank + len(diff))),
            "score": pa.array(np.abs(diff)),
            "name": self._names.take(alleles["target"].combine_chunks()),
            "diff": pa.array(diff),
        }
        self._rank += len(diff)
        table = pa.concat_tables([self._waiting, select(RANKED_VARIANTS, columns, alleles)])
        table = table.combine_chunks()
        whole = table.num_rows - table.num_rows % _ROW_GROUP
        if whole:
            self._writer.write_table(table.slice(0, whole), row_group_size=_ROW_GROUP)
        self._waiting = table.slice(whole)
