"""The strongest effects of each target: the keys that a shard stores, and their ranking.

A shard of 65,536 alleles has a thousand strongest effects for each of 919 targets: 7 MB, or 84 GB
over the shards of gnomAD. Nearly all of them are weaker than those of other shards. So a worker
keeps a threshold per target: the n-th strongest effect over the shards that it committed itself.
It leaves out weaker effects. Its i-th shard then leaves about n / i keys per target.

This does not change the result. A row has the same key for a target in every worker. A key below a
threshold is below the keys of n other rows of the run, so it is not among the n strongest of the
run. This holds for any set of rows that the threshold was made from: for any worker, after a
restart, and for a shard that is scored again.
"""

from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.genome.alleles import RANKED_TARGETS, Shard, select
from raygenome.ranking import sort_keys
from raygenome.ranking.variants import pick_rows

#: Rows gathered before the strongest of each target are searched. All effects of the first rows
#: become keys: 80 MB for 919 targets.
_BLOCK = 1_024
_ROW_GROUP = 65_536


class TopEffects:
    """The `n` strongest effects of each target among the rows seen, not below a threshold.

    They are taken from the float32 effects, before rounding, so that ranks do not depend on
    --effect-dtype.

    Args:
        targets: number of targets.
        n: how many effects to keep per target, at least 1.
        first_row: the number, in the plan, of the first row.
        threshold: the worker's; None keeps the `n` strongest rows in any case.
    """

    def __init__(
        self, targets: int, n: int, first_row: int, threshold: "Threshold | None" = None
    ) -> None:
        self._next_row = first_row
        self._best = _TopN(targets, n, None if threshold is None else threshold.least)
        self._waiting: list[np.ndarray] = []

    def append(self, effects: np.ndarray) -> None:
        """Add rows: float32 (n, targets), the next ones of the plan."""
        self._waiting.append(effects)
        if sum(len(rows) for rows in self._waiting) >= _BLOCK:
            self._take()

    def keys(self) -> np.ndarray:
        """Return the keys (targets, up to n), descending; 0 where a target has fewer left."""
        self._take()
        return self._best.keys()

    def _take(self) -> None:
        if not self._waiting:
            return
        effects = np.concatenate(self._waiting)
        self._waiting = []
        # Most effects are too weak, which the floats alone show. Keys are made of the others.
        weakest, _ = sort_keys.decode(self._best.least)
        row, target = np.nonzero(np.abs(effects) >= np.abs(weakest))
        self._best.add(target, sort_keys.encode(effects[row, target], self._next_row + row))
        self._next_row += len(effects)


class Threshold:
    """The least key of each target that can still be among the `n` strongest of a run.

    A worker keeps one for as long as it lives. It takes the memory of targets x n keys.
    """

    def __init__(self, targets: int, n: int) -> None:
        self._best = _TopN(targets, n, None)
        self._shards: set[int] = set()

    @property
    def least(self) -> np.ndarray:
        """The least keys: uint64 (targets,), 0 for a target as long as there is none."""
        return self._best.least

    def rise(self, shard: int, keys: np.ndarray) -> None:
        """Add the keys (targets, m) that `shard` has committed; a second time changes nothing.

        If a row were counted twice, fewer than n other rows would be above the threshold.
        """
        if shard not in self._shards:
            self._shards.add(shard)
            self._best.add(np.nonzero(keys)[0], keys[keys > 0])  # lists of keys end in zeros
            self._best.settle()


def write_top_effects(file: BinaryIO, keys: np.ndarray) -> None:
    """Write what `TopEffects.keys` returns: two .npy, one after the other.

    The first is how many keys each target has, uint32 (targets,). The second is the keys of the
    first target, then of the second and so on, uint64.
    """
    np.save(file, np.count_nonzero(keys, axis=1).astype(np.uint32))
    np.save(file, keys[keys > 0])


def read_top_effects(file: BinaryIO | bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return what `write_top_effects` wrote, from a file or its bytes: (target of each key, keys).

    Raises:
        DataError: the file is damaged.
    """
    handle = BytesIO(file) if isinstance(file, bytes) else file
    try:
        counts = np.load(handle, allow_pickle=False)
        keys = np.load(handle, allow_pickle=False)
        if keys.dtype != np.uint64:
            raise ValueError(f"keys are {keys.dtype}")
        return np.repeat(np.arange(len(counts), dtype=np.int16), counts), keys.reshape(counts.sum())
    except (ValueError, TypeError, EOFError) as error:
        raise DataError(
            f"a shard's list of strongest effects is damaged ({error})", "run again with --resume"
        ) from error


def merge_top_effects(files: Iterable[BinaryIO | bytes], targets: int, top_n: int) -> np.ndarray:
    """Return the keys (targets, up to top_n) of the strongest effects of each target, descending.

    Memory holds the keys of some files: no more than `top_n` per target beside the strongest so
    far and those of one file. Each file is read once.

    Args:
        files: of `write_top_effects`, one per shard, in any order.
        targets: number of targets.
        top_n: how many to keep per target; no shard may have kept fewer.

    Raises:
        DataError: a file is damaged.
    """
    best = _TopN(targets, top_n, None)
    for file in files:
        best.add(*read_top_effects(file))
    return best.keys()


def rank_targets(
    keys: np.ndarray,
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    out: Path,
) -> None:
    """Write the strongest alleles of each target: RANKED_TARGETS.

    Args:
        keys: of `merge_top_effects`.
        shards: of the plan.
        summary_of: returns the path of a shard's summary, or the opened file.
        out: the file to write; the caller publishes it.
    """
    targets, count = keys.shape
    diff, rows = sort_keys.decode(keys.ravel())
    columns = {
        "target": pa.array(np.repeat(np.arange(targets, dtype=np.int16), count)),
        "rank": pa.array(np.tile(np.arange(1, count + 1, dtype=np.int32), targets)),
        "diff": pa.array(diff),
    }
    pq.write_table(
        select(RANKED_TARGETS, columns, pick_rows(shards, summary_of, rows)),
        out,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        write_page_checksum=True,
        store_schema=False,
    )


class _TopN:
    """The `n` largest keys of each target; keys below `least`, uint64 (targets,), are left out."""

    def __init__(self, targets: int, n: int, least: np.ndarray | None) -> None:
        self.least = np.zeros(targets, dtype=np.uint64) if least is None else least
        self._n = n
        self._best = np.empty((targets, 0), dtype=np.uint64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._counts = np.zeros(targets, dtype=np.int64)

    def add(self, target: np.ndarray, keys: np.ndarray) -> None:
        """Add keys, and for each its target."""
        strong = keys >= self.least[target]
        # In 16 bits, numpy sorts by radix, in linear time.
        target, keys = target[strong].astype(np.int16), keys[strong]
        self._waiting.append((target, keys))
        self._counts += np.bincount(target, minlength=len(self._counts))
        if self._counts.max(initial=0) >= self._n:
            self.settle()

    def settle(self) -> None:
        """Sort in the keys that wait, and raise `least` where a target has `n`."""
        if not self._waiting:
            return
        target, keys = map(np.concatenate, zip(*self._waiting, strict=True))
        order = np.argsort(target, kind="stable")
        ends = np.cumsum(self._counts)
        target = target[order]
        column = np.arange(len(keys)) - (ends - self._counts)[target]
        new = np.zeros((len(ends), self._counts.max(initial=0)), dtype=np.uint64)
        new[target, column] = keys[order]
        self._best = sort_keys.largest(np.concatenate([self._best, new], axis=1), self._n)
        self._waiting, self._counts = [], np.zeros_like(self._counts)
        if self._best.shape[1] == self._n:
            self.least = np.maximum(self.least, self._best[:, 0])

    def keys(self) -> np.ndarray:
        """Return the keys (targets, up to n), descending; 0 where a target has fewer."""
        self.settle()
        width = int(np.count_nonzero(self._best, axis=1).max(initial=0))
        return np.ascontiguousarray(np.sort(self._best, axis=1)[:, ::-1][:, :width])
