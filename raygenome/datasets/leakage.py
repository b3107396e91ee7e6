"""Whether a split holds sequence of another: windows that overlap across splits."""

from itertools import pairwise, permutations

import numpy as np

from raygenome.datasets.packed import Dataset


def leakage(dataset: Dataset) -> dict[str, int | None]:
    """Return, by pair of splits "test in train", how many windows of the first touch the second.

    None stands for a pair of which one has no coordinates. Splits without rows are left out.
    """
    names = [name for name, entry in dataset.manifest.splits.items() if entry.rows]
    spans = {name: _spans(dataset, name) for name in names}
    found: dict[str, int | None] = {}
    for one, other in permutations(names, 2):
        here, there = spans[one], spans[other]
        known = here is not None and there is not None
        found[f"{one} in {other}"] = _touching(here, there) if known else None
    return found


#: Starts and ends by contig, in order of start.
_Spans = dict[str, tuple[np.ndarray, np.ndarray]]


def _spans(dataset: Dataset, name: str) -> _Spans | None:
    sites = dataset.split(name).sites()
    if sites is None:
        return None
    # Of each contig one stretch of rows, in order of start, after one sort of them all.
    contigs = sites["contig"].combine_chunks().dictionary_encode()
    names, codes = contigs.dictionary.to_pylist(), contigs.indices.to_numpy()
    order = np.lexsort([sites["start"].to_numpy(), codes])
    start, end = sites["start"].to_numpy()[order], sites["end"].to_numpy()[order]
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    pairs = zip(names, pairwise(edges.tolist()), strict=True)
    return {name: (start[begin:stop], end[begin:stop]) for name, (begin, stop) in pairs}


def _touching(here: _Spans | None, there: _Spans | None) -> int:
    """Return how many windows of `here` share a base with any of `there`."""
    count = 0
    for contig, (start, end) in (here or {}).items():
        if there and contig in there:
            starts, ends = there[contig]
            # Of the windows there that begin before this one ends, one reaches furthest.
            reach = np.maximum.accumulate(ends)
            before = np.searchsorted(starts, end, side="left")
            count += int(((before > 0) & (reach[before - 1] > start)).sum())
    return count
