"""Basset's recipe for windows: peaks resized to 600 bases, and merged if they overlap by 200.

Each peak is reduced to its midpoint and extended to both sides. In order of start, windows form a
group as long as each overlaps the one before by more than 200 bases. Within a group the two
neighbours that overlap most (the leftmost such pair) are merged, until no two overlap by 200. A
merged window has the targets of both and lies around the mean of their midpoints, weighted by
1 + the number of targets.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from raygenome.datasets.packed import label_bytes
from raygenome.datasets.peaks import TargetPeaks

WINDOW = 600
MERGE_OVERLAP = 200

#: The approximate number of windows per chunk; a chunk consists of whole groups.
_CHUNK = 1 << 16


class Merging(NamedTuple):
    """The sizes of the recipe: bases per window, and the overlap from which two are merged."""

    window_size: int = WINDOW
    overlap: int = MERGE_OVERLAP


#: A window during merging: its start, and its targets as the bits of an integer.
_Window = tuple[int, int]


def peak_windows(
    peaks: Iterable[TargetPeaks], length: int, n_targets: int, merging: Merging | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the windows of one contig, in order, in chunks.

    Args:
        peaks: of each target that has any on the contig; their order does not matter.
        length: of the contig; it has no windows if it is shorter than one.
        n_targets: number of targets.
        merging: sizes; the published ones if None.

    Yields:
        Starts of windows, int64 (n,), and their packed labels, uint8 (n, label_bytes(n_targets)).
    """
    merging = merging or Merging()
    if length < merging.window_size:
        return
    starts, owners = _extended(peaks, length, n_targets, merging.window_size)
    if len(starts) == 0:
        return
    # Equal windows overlap most, so they are merged first and do not move.
    firsts = np.flatnonzero(np.concatenate([[True], np.diff(starts) > 0]))
    unique = starts[firsts]
    ends = np.append(firsts[1:], len(starts))
    gaps = np.diff(unique) >= merging.window_size - merging.overlap
    opens = np.concatenate([[0], np.flatnonzero(gaps) + 1, [len(unique)]])
    for first, last in _chunks(opens):
        begin, end = int(opens[first]), int(opens[last])
        rows = slice(int(firsts[begin]), int(ends[end - 1]))
        index = np.repeat(np.arange(end - begin), ends[begin:end] - firsts[begin:end])
        bits = np.zeros((end - begin, label_bytes(n_targets)), dtype=np.uint8)
        owner = owners[rows]
        np.bitwise_or.at(bits, (index, owner >> 3), (1 << (owner & 7)).astype(np.uint8))
        groups = opens[first : last + 1] - begin
        yield _merge_groups(unique[begin:end], bits, groups, length, merging)


def _extended(
    peaks: Iterable[TargetPeaks], length: int, n_targets: int, window_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts of windows around midpoints, and their targets: each pair once, sorted."""
    pairs = [np.empty(0, dtype=np.int64)]
    for target, starts, ends in peaks:
        begins = _start_of((starts + ends) // 2, length, window_size)
        pairs.append(np.unique(begins) * n_targets + target)
    pair = np.sort(np.concatenate(pairs))
    starts = pair // n_targets
    return starts, pair - starts * n_targets


def _start_of(middle: np.ndarray, length: int, window_size: int) -> np.ndarray:
    """Return the starts of windows around midpoints, shifted to lie on the contig."""
    return np.minimum(np.maximum(middle - window_size // 2, 0), length - window_size)


def _chunks(opens: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (first, last) ranges of groups that hold about _CHUNK windows each."""
    first = 0
    while first < len(opens) - 1:
        last = int(np.searchsorted(opens, opens[first] + _CHUNK, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _merge_groups(
    starts: np.ndarray, bits: np.ndarray, opens: np.ndarray, length: int, merging: Merging
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows of groups after merging: starts (n,) and packed labels (n, bytes).

    Args:
        starts: of the windows before merging, (m,), ascending.
        bits: their packed labels, uint8 (m, bytes).
        opens: index of the first window of each group, and the end of the last group.
        length: of the contig.
        merging: sizes.
    """
    merged_starts, merged_bits = [], []
    width = bits.shape[1]
    rows = bits.tobytes()
    places = starts.tolist()
    for begin, end in zip(opens[:-1].tolist(), opens[1:].tolist(), strict=True):
        if end - begin == 1:
            merged_starts.append(places[begin])
            merged_bits.append(rows[begin * width : end * width])
            continue
        group = [
            (places[row], int.from_bytes(rows[row * width : (row + 1) * width], "little"))
            for row in range(begin, end)
        ]
        for start, owners in merge_group(group, length, merging):
            merged_starts.append(start)
            merged_bits.append(owners.to_bytes(width, "little"))
    labels = np.frombuffer(b"".join(merged_bits), dtype=np.uint8).reshape(-1, width)
    return np.array(merged_starts, dtype=np.int64), labels


def merge_group(group: list[_Window], length: int, merging: Merging) -> list[_Window]:
    """Return the windows of one group after merging the closest neighbours while they overlap.

    Args:
        group: starts, ascending, and targets as the bits of an integer.
        length: of the contig.
        merging: sizes.
    """
    starts = [start for start, _ in group]
    owners = [bits for _, bits in group]
    count = len(group)
    # A linked list: a merged window keeps the place of the left one, the right one is unlinked.
    after, before = list(range(1, count + 1)), list(range(-1, count - 1))
    alive = [True] * count
    # Smallest distance of starts first, then leftmost; an entry may be out of date when popped.
    closest = [(starts[i + 1] - starts[i], i) for i in range(count - 1)]
    heapq.heapify(closest)
    farthest = merging.window_size - merging.overlap
    while closest:
        distance, left = heapq.heappop(closest)
        if distance > farthest:
            break
        right = after[left]
        if not alive[left] or right == count or starts[right] - starts[left] != distance:
            continue
        starts[left] = _merged_start(
            (starts[left], owners[left]),
            (starts[right], owners[right]),
            length,
            merging.window_size,
        )
        owners[left] |= owners[right]
        alive[right] = False
        beyond = after[left] = after[right]
        if beyond < count:
            before[beyond] = left
            heapq.heappush(closest, (starts[beyond] - starts[left], left))
        if before[left] >= 0:
            heapq.heappush(closest, (starts[left] - starts[before[left]], before[left]))
    return [(starts[i], owners[i]) for i in range(count) if alive[i]]


def _merged_start(one: _Window, other: _Window, length: int, window_size: int) -> int:
    """Return the start of the window around the weighted mean of two midpoints."""
    weights = [1 + bits.bit_count() for _, bits in (one, other)]
    total = sum(weights)
    half = window_size // 2
    middles = [start + half for start, _ in (one, other)]
    # The mean, rounded to nearest with halves up; integers make it exact.
    weighted = middles[0] * weights[0] + middles[1] * weights[1]
    middle = (2 * weighted + total) // (2 * total)
    return min(max(middle - half, 0), length - window_size)
