"""Summaries: of each allele of a shard, what ranking needs; and how millions of them are sorted.

A summary is a small Parquet file beside the part: 15 bytes an allele, where the part's keys, scores
and lists of strongest targets take 100 and a footer of hundreds of kB. So ranking opens no part.

The sort is a distribution: the alleles are spread, by splitters that a sample gives, over buckets
of about a million in one scratch file, and the buckets are sorted in memory, strongest first. Each
allele is read twice and written twice, however many there are; memory is that of a few buckets.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.cluster.hardware import cores
from raygenome.genome.targets import Target
from raygenome.ranking import sort_keys
from raygenome.ranking.sort_keys import MAX_ROWS
from raygenome.results.run_dir import Shard

SCHEMA = pa.schema(
    [
        ("key", pa.uint64()),
        ("chrom", pa.string()),
        ("pos", pa.int32()),
        ("id", pa.string()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("target", pa.int16()),
    ]
)
RANKED = pa.schema(
    [
        ("rank", pa.int64()),
        ("score", pa.float32()),
        *[SCHEMA.field(name) for name in ("chrom", "pos", "id", "ref", "alt", "target")],
        ("name", pa.string()),
        ("diff", pa.float32()),
    ]
)
#: Alleles of a bucket, and of what is spread at a time: 100 MB in memory.
BUCKET = 2**20
#: Summaries whose keys are read once more, for the sample.
_SAMPLED = 64
#: Each thread has a bucket or two in memory.
_MAX_THREADS = 4
_ROW_GROUP = 65_536

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def summarise(keys: pa.Table, strongest: np.ndarray, first_row: int) -> pa.Table:
    """Return the summary of a shard's alleles.

    Args:
        keys: the key columns of its part.
        strongest: uint64 (n,), of each row the first of `toplist.strongest`.
        first_row: the number, in the plan, of the first.
    """
    diff, target = sort_keys.decode(strongest)
    rows = np.arange(first_row, first_row + len(diff))
    columns = {
        "key": pa.array(sort_keys.encode(diff, rows)),
        "target": pa.array(target, pa.int16()),
    }
    made = [columns[name] if name in columns else keys[name] for name in SCHEMA.names]
    return pa.table(made, schema=SCHEMA)


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


def rank_summaries(
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    targets: Sequence[Target],
    out: Path,
    scratch: Path,
) -> None:
    """Write every allele by falling score: rank, score, key columns, and its strongest target.

    Equal scores are in the plan's order. The bytes do not depend on the number of threads.

    Args:
        shards: of the plan.
        summary_of: gives the path of a shard's summary, or the file opened; called in threads,
            once for each shard and once more for some.
        targets: of the model; they name the strongest.
        out: the file to write, not published by us.
        scratch: a file that is written and removed: some 50 bytes an allele.
    """
    names = pa.array([target.name for target in targets], pa.string())
    with ThreadPoolExecutor(min(cores(), _MAX_THREADS)) as pool:
        splitters = _splitters(shards, summary_of, pool)
        try:
            places = _spread_all(shards, summary_of, splitters, scratch, pool)
            with _Ranked(out, names) as ranked, pa.OSFile(str(scratch), "rb") as source:
                read = _BucketReader(source)
                for bucket in ahead(pool, read.sorted, filter(None, places)):
                    ranked.append(bucket)
        finally:
            scratch.unlink(missing_ok=True)


def pick_rows(
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    rows: np.ndarray,
) -> pa.Table:
    """Return the summaries of the alleles `rows`, numbers in the plan, in that order.

    Only the shards that hold one are read, each once.
    """
    wanted, place = np.unique(rows, return_inverse=True)
    edges = np.searchsorted(wanted, [shard.begin for shard in shards] + [MAX_ROWS])

    def pick(index: int) -> pa.Table:
        inside = wanted[edges[index] : edges[index + 1]] - shards[index].begin
        return pq.read_table(summary_of(shards[index])).take(pa.array(inside))

    holding = np.flatnonzero(np.diff(edges)).tolist()
    with ThreadPoolExecutor(min(cores(), _MAX_THREADS)) as pool:
        found = pa.concat_tables([SCHEMA.empty_table(), *ahead(pool, pick, holding)])
    return found.combine_chunks().take(pa.array(place))


def _splitters(
    shards: Sequence[Shard], summary_of: Callable[[Shard], Any], pool: ThreadPoolExecutor
) -> np.ndarray:
    """Return the least key of each bucket but the last, descending, by a sample of the shards."""

    def keys_of(shard: Shard) -> np.ndarray:
        return pq.read_table(summary_of(shard), columns=["key"])["key"].to_numpy()

    chosen = shards[:: max(-(-len(shards) // _SAMPLED), 1)]
    keys = np.concatenate([np.empty(0, np.uint64), *pool.map(keys_of, chosen)])
    keys = np.sort(keys)[::-1]
    buckets = max(-(-sum(shard.rows for shard in shards) // BUCKET), 1)
    return keys[np.arange(1, buckets) * len(keys) // buckets]


def _spread_all(
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], Any],
    splitters: np.ndarray,
    scratch: Path,
    pool: ThreadPoolExecutor,
) -> list[list[int]]:
    """Write the alleles to `scratch`, an Arrow file; return each bucket's record batches in it."""

    def spread(group: list[Shard]) -> tuple[pa.Table, np.ndarray]:
        tables = [pq.read_table(summary_of(shard), use_threads=False) for shard in group]
        return _spread(pa.concat_tables(tables), splitters)

    places: list[list[int]] = [[] for _ in range(len(splitters) + 1)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    written = 0
    with (
        pa.OSFile(str(scratch), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA, options=options) as writer,
    ):
        for table, edges in ahead(pool, spread, _groups(shards)):
            for bucket, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
                if begin < end:
                    (batch,) = table.slice(begin, end - begin).to_batches()
                    writer.write_batch(batch)
                    places[bucket].append(written)
                    written += 1
    return places


def _spread(alleles: pa.Table, splitters: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return `alleles` in the order of their buckets, and where in it each begins and ends."""
    keys = alleles["key"].to_numpy()
    # Ascending order has each splitter as the least of its bucket.
    bucket = len(splitters) - np.searchsorted(splitters[::-1], keys, side="right")
    bucket = bucket.astype(np.int16 if len(splitters) < 2**15 else np.int64)  # 16 bits: by radix
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(len(splitters) + 2))
    return alleles.take(pa.array(order)).combine_chunks(), edges


class _BucketReader:
    """Reads buckets back, for several threads: one reads while others sort."""

    def __init__(self, source: pa.NativeFile) -> None:
        self._batches = pa.ipc.open_file(source)
        self._lock = Lock()

    def sorted(self, places: list[int]) -> pa.Table:
        """Return the alleles of the record batches at `places`, the strongest first."""
        with self._lock:
            batches = [self._batches.get_batch(place) for place in places]
        alleles = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
        order = np.argsort(alleles["key"].to_numpy())[::-1]
        return alleles.take(pa.array(order)).combine_chunks()


def _groups(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Yield the shards, so many at a time that they have BUCKET alleles."""
    group: list[Shard] = []
    rows = 0
    for shard in shards:
        group.append(shard)
        rows += shard.rows
        if rows >= BUCKET:
            yield group
            group, rows = [], 0
    if group:
        yield group


def ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[_Item], _Made],
    items: Iterable[_Item],
    few: int = _MAX_THREADS,
) -> Iterator[_Made]:
    """Yield what `work` makes of each item, in order, with a `few` of them under way."""
    waiting: deque[Future[_Made]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > few:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Ranked:
    """Writes ranked alleles, in row groups of one size wherever buckets end; a context manager."""

    def __init__(self, out: Path, names: pa.Array) -> None:
        self._names = names
        self._waiting = RANKED.empty_table()
        self._rank = 1
        self._writer = pq.ParquetWriter(
            out,
            RANKED,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["chrom", "ref", "alt", "target", "name"],
            store_schema=False,
        )

    def __enter__(self) -> "_Ranked":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        self._writer.close()

    def append(self, alleles: pa.Table) -> None:
        """Add the next alleles."""
        diff, _ = sort_keys.decode(alleles["key"].to_numpy())
        columns = {
            "rank": pa.array(np.arange(self._rank, self._rank + len(diff))),
            "score": pa.array(np.abs(diff)),
            "name": self._names.take(alleles["target"].combine_chunks()),
            "diff": pa.array(diff),
        }
        self._rank += len(diff)
        made = [columns[name] if name in columns else alleles[name] for name in RANKED.names]
        table = pa.concat_tables([self._waiting, pa.table(made, schema=RANKED)]).combine_chunks()
        whole = table.num_rows - table.num_rows % _ROW_GROUP
        if whole:
            self._writer.write_table(table.slice(0, whole), row_group_size=_ROW_GROUP)
        self._waiting = table.slice(whole)
