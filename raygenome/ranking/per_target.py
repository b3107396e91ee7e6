"""Tops: the strongest effects of each target that a shard leaves for the ranking of targets.

A shard of 65,536 alleles has a thousand strongest effects for each of 919 targets: 7 MB, 84 GB over
the shards of gnomAD. Nearly all of them are beaten by other shards, and a worker knows it: it holds
a floor, the n-th strongest effect of each target over the shards that it committed itself, and
leaves out what is weaker. After i shards its next one then leaves about n / i keys a target.

What is left out never matters. A row has one key for a target, whoever computes it. A key below a
floor is below those of n other rows of the run, so it is not among the n strongest of the run; this
holds for any set of rows the floor was made from, so for any worker, restart, or shard done again.
"""

from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.ranking import sort_keys
from raygenome.ranking.variants import pick_rows
from raygenome.results.run_dir import Shard

RANKED = pa.schema(
    [
        ("target", pa.int16()),
        ("rank", pa.int32()),
        ("chrom", pa.string()),
        ("pos", pa.int32()),
        ("id", pa.string()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("diff", pa.float32()),
    ]
)

#: Rows gathered before the strongest of each target are sought among them: of the first, all are
#: keys to be, in 80 MB for 919 targets.
_BLOCK = 1_024
_ROW_GROUP = 65_536


class TargetTops:
    """The `n` strongest effects of each target among the rows seen, at or above a floor.

    Kept from the float32 effects, before rounding, so that ranks do not depend on --effect-dtype.

    Args:
        targets: how many.
        n: how many effects to keep of each, at least 1.
        first_row: the number, in the plan, of the first row.
        floor: what is known to be among the strongest already; None where nothing is.
    """

    def __init__(self, targets: int, n: int, first_row: int, floor: "Floor | None" = None) -> None:
        self._next_row = first_row
        self._best = _Best(targets, n, None if floor is None else floor.bound)
        self._waiting: list[np.ndarray] = []

    def append(self, effects: np.ndarray) -> None:
        """Add rows: float32 (n, targets), the plan's next ones."""
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
        # Most are too weak, and that is seen from the floats alone: keys are made of the rest.
        least, _ = sort_keys.decode(self._best.bound)
        row, target = np.nonzero(np.abs(effects) >= np.abs(least))
        self._best.add(target, sort_keys.encode(effects[row, target], self._next_row + row))
        self._next_row += len(effects)


class Floor:
    """The least key of each target that can still be among the `n` strongest of a run.

    One a worker, as long as it lives: memory is that of targets x n keys.
    """

    def __init__(self, targets: int, n: int) -> None:
        self._best = _Best(targets, n, None)
        self._shards: set[int] = set()

    @property
    def bound(self) -> np.ndarray:
        """Return the floors: uint64 (targets,), 0 as long as there is none."""
        return self._best.bound

    def rise(self, shard: int, keys: np.ndarray) -> None:
        """Take in the keys (targets, m) that `shard` has committed; a second time changes nothing.

        Were a row counted twice, fewer than n others would stand above the floor.
        """
        if shard not in self._shards:
            self._shards.add(shard)
            self._best.add(*_ragged(keys))
            self._best.settle()


def write_tops(file: BinaryIO, keys: np.ndarray) -> None:
    """Write what `TargetTops.keys` returns: two .npy, one after the other.

    They are how many keys each target has, uint32 (targets,), and the keys of the first target, of
    the second and so on, uint64.
    """
    np.save(file, np.count_nonzero(keys, axis=1).astype(np.uint32))
    np.save(file, keys[keys > 0])


def read_tops(file: BinaryIO | bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return what `write_tops` wrote, from a file or its bytes: (targets of the keys, keys).

    Raises:
        DataError: it is damaged.
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
            f"a shard's list of strongest effects is damaged ({error}); run again with --resume"
        ) from error


def merge_tops(files: Iterable[BinaryIO | bytes], targets: int, top_n: int) -> np.ndarray:
    """Return the keys (targets, up to top_n) of the strongest effects of each target, descending.

    In memory are the keys of some files, no more than `top_n` a target beside the strongest so far
    and those of one file; each file is read once.

    Args:
        files: of `write_tops`, one a shard, in any order.
        targets: how many.
        top_n: how many to keep of each; no shard may have kept fewer.

    Raises:
        DataError: one is damaged.
    """
    best = _Best(targets, top_n, None)
    for file in files:
        best.add(*read_tops(file))
    return best.keys()


def rank_tops(
    keys: np.ndarray,
    shards: Sequence[Shard],
    summary_of: Callable[[Shard], str | Path | BinaryIO],
    out: Path,
) -> None:
    """Write the strongest alleles of each target: target, rank, the key columns, diff.

    Args:
        keys: of `merge_tops`.
        shards: of the plan.
        summary_of: gives the path of a shard's summary, or the file opened.
        out: the file to write, not published by us.
    """
    targets, count = keys.shape
    diff, rows = sort_keys.decode(keys.ravel())
    alleles = pick_rows(shards, summary_of, rows)
    columns = {
        "target": pa.array(np.repeat(np.arange(targets, dtype=np.int16), count)),
        "rank": pa.array(np.tile(np.arange(1, count + 1, dtype=np.int32), targets)),
        "diff": pa.array(diff),
    }
    made = [columns[name] if name in columns else alleles[name] for name in RANKED.names]
    pq.write_table(
        pa.table(made, schema=RANKED),
        out,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        write_page_checksum=True,
        store_schema=False,
    )


class _Best:
    """The `n` largest keys of each target; what is below `bound` is not taken in."""

    def __init__(self, targets: int, n: int, bound: np.ndarray | None) -> None:
        self.bound = np.zeros(targets, dtype=np.uint64) if bound is None else bound
        self._n = n
        self._best = np.empty((targets, 0), dtype=np.uint64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._counts = np.zeros(targets, dtype=np.int64)

    def add(self, target: np.ndarray, keys: np.ndarray) -> None:
        """Add keys, and for each its target."""
        strong = keys >= self.bound[target]
        # In 16 bits, numpy sorts by radix, in linear time.
        target, keys = target[strong].astype(np.int16), keys[strong]
        self._waiting.append((target, keys))
        self._counts += np.bincount(target, minlength=len(self._counts))
        if self._counts.max(initial=0) >= self._n:
            self.settle()

    def settle(self) -> None:
        """Leave no key waiting, and raise `bound` where a target has `n`."""
        if not self._waiting:
            return
        target, keys = map(np.concatenate, zip(*self._waiting, strict=True))
        order = np.argsort(target, kind="stable")
        ends = np.cumsum(self._counts)
        target = target[order]
        place = np.arange(len(keys)) - (ends - self._counts)[target]
        new = np.zeros((len(ends), self._counts.max(initial=0)), dtype=np.uint64)
        new[target, place] = keys[order]
        self._best = sort_keys.largest(np.concatenate([self._best, new], axis=1), self._n)
        self._waiting, self._counts = [], np.zeros_like(self._counts)
        if self._best.shape[1] == self._n:
            self.bound = np.maximum(self.bound, self._best[:, 0])

    def keys(self) -> np.ndarray:
        """Return the keys (targets, up to n), descending; 0 where a target has fewer."""
        self.settle()
        width = int(np.count_nonzero(self._best, axis=1).max(initial=0))
        return np.ascontiguousarray(np.sort(self._best, axis=1)[:, ::-1][:, :width])


def _ragged(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (targets of the keys, keys) of lists that end in zeros."""
    return np.nonzero(keys)[0], keys[keys > 0]
