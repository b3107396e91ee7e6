"""An external sort: rows that do not fit in memory are put in order through one scratch file.

The rows are distributed over buckets of about a million rows, at splitters that a sample of the
keys gives. Then each bucket is sorted in memory. Each row is written to the scratch file once and
read back once, however many rows there are. Memory is that of a few buckets.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa

from raygenome.cluster.hardware import cores

#: Rows of a bucket, and rows that are distributed at a time: 100 MB in memory.
BUCKET = 2**20
#: Each thread has a bucket or two in memory.
MAX_THREADS = 4

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def external_sort(
    blocks: Iterable[_Item],
    read: Callable[[_Item], pa.Table],
    key_of: Callable[[pa.Table], np.ndarray],
    sort: Callable[[pa.Table], pa.Table],
    *,
    schema: pa.Schema,
    rows: int,
    sample: np.ndarray,
    scratch: Path,
) -> Generator[pa.Table]:
    """Yield all rows in order, one bucket at a time; close the iterator if it is not used up.

    Args:
        blocks: whatever `read` takes: about BUCKET rows each.
        read: returns the rows of a block; called in threads, once per block.
        key_of: returns an integer per row; rows with smaller keys come first.
        sort: returns the rows of a bucket in order. Rows with equal keys are in one bucket.
        schema: of the rows.
        rows: how many there are in all.
        sample: keys of some of the rows.
        scratch: a file that is written and removed.
    """
    buckets = max(-(-rows // BUCKET), 1)
    sample = np.sort(sample)
    splitters = sample[np.arange(1, buckets) * len(sample) // buckets]
    lock = Lock()

    def distribute(block: _Item) -> tuple[pa.Table, np.ndarray]:
        return _distribute(read(block), key_of, splitters)

    try:
        with ThreadPoolExecutor(min(cores(), MAX_THREADS)) as pool:
            places = _write(scratch, schema, ahead(pool, distribute, blocks), buckets)
            with pa.OSFile(str(scratch), "rb") as source:
                batches = pa.ipc.open_file(source)

                def sorted_bucket(numbers: list[int]) -> pa.Table:
                    with lock:  # one thread reads while others sort
                        read_back = [batches.get_batch(number) for number in numbers]
                    return sort(pa.Table.from_batches(read_back, schema).combine_chunks())

                yield from ahead(pool, sorted_bucket, filter(None, places))
    finally:
        scratch.unlink(missing_ok=True)


def ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[_Item], _Made],
    items: Iterable[_Item],
    few: int = MAX_THREADS,
) -> Iterator[_Made]:
    """Yield what `work` returns for each item, in order, while a `few` items are worked on."""
    waiting: deque[Future[_Made]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > few:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _distribute(
    table: pa.Table, key_of: Callable[[pa.Table], np.ndarray], splitters: np.ndarray
) -> tuple[pa.Table, np.ndarray]:
    """Return `table` in the order of its buckets, and the edges of the buckets in it."""
    bucket = np.searchsorted(splitters, key_of(table), side="right")
    bucket = bucket.astype(np.int16 if len(splitters) < 2**15 else np.int64)  # 16 bits: by radix
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(len(splitters) + 2))
    return table.take(pa.array(order)).combine_chunks(), edges


def _write(
    scratch: Path,
    schema: pa.Schema,
    blocks: Iterable[tuple[pa.Table, np.ndarray]],
    buckets: int,
) -> list[list[int]]:
    """Write distributed blocks to an Arrow file; return the record batches of each bucket."""
    places: list[list[int]] = [[] for _ in range(buckets)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    written = 0
    with (
        pa.OSFile(str(scratch), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        for table, edges in blocks:
            for bucket, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
                if begin < end:
                    (batch,) = table.slice(begin, end - begin).to_batches()
                    writer.write_batch(batch)
                    places[bucket].append(written)
                    written += 1
    return places
