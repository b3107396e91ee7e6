"""Whether a split holds sequence of another: windows that overlap across splits."""

from itertools import pairwise, permutations

import numpy as np

from raygenome.datasets.packed import Dataset
from raygenome.genome.intervals import Regions, Spans


def leakage(dataset: Dataset) -> dict[str, int | None]:
    """Return, for each pair "test in train", how many windows of the first overlap the second.

    None stands for a pair in which a split has no coordinates. Splits without rows are left out.
    """
    names = [name for name, entry in dataset.manifest.splits.items() if entry.rows]
    windows = {name: _windows(dataset, name) for name in names}
    found: dict[str, int | None] = {}
    for one, other in permutations(names, 2):
        here, there = windows[one], windows[other]
        if here is None or there is None:
            found[f"{one} in {other}"] = None
        else:
            found[f"{one} in {other}"] = _overlapping(here, Regions.of_spans(there))
    return found


def _windows(dataset: Dataset, name: str) -> dict[str, Spans] | None:
    """Return the windows of a split by contig; None if they have no coordinates."""
    sites = dataset.split(name).sites()
    if sites is None:
        return None
    contigs = sites["contig"].combine_chunks().dictionary_encode()
    names, codes = contigs.dictionary.to_pylist(), contigs.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    start, end = sites["start"].to_numpy()[order], sites["end"].to_numpy()[order]
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    pairs = zip(names, pairwise(edges.tolist()), strict=True)
    return {name: (start[begin:stop], end[begin:stop]) for name, (begin, stop) in pairs}


def _overlapping(windows: dict[str, Spans], regions: Regions) -> int:
    """Return how many windows share a base with regions."""
    return sum(int(regions.overlaps(contig, *spans).sum()) for contig, spans in windows.items())
