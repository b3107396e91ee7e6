"""Sort keys: an effect and its row as one integer, so that ties are broken the same way everywhere.

A key is a uint64:

    bits 63..32   |diff|, as the bits of its float32, which order as the values do
    bits 31..1    2**31 - 1 - row
    bit 0         whether diff is negative

Of two keys the larger is the stronger effect, and at equal |diff| the smaller row. So merging lists
is a partition of integers, in whatever order the lists come. A key gives back its diff and its row
exactly. It is never 0, which stands for "none" where lists of several lengths share an array.
"""

import numpy as np

#: Rows are numbered below this, so that no key is 0.
MAX_ROWS = 2**31 - 1
#: Rows of a block in `strongest`: the keys of 919 targets then take 30 MB.
_BLOCK = 4_096


def encode(diff: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the keys of `diff`.

    Args:
        diff: float32 (..., n), no NaN.
        rows: integers (n,), the row that each position of the last axis stands for.

    Returns:
        uint64 of the shape of `diff`.

    Raises:
        ValueError: a row is negative or not below MAX_ROWS.
    """
    rows = np.asarray(rows)
    if len(rows) and (rows.min() < 0 or rows.max() >= MAX_ROWS):
        raise ValueError(f"rows must lie in 0..{MAX_ROWS - 1}")
    keys = np.abs(diff.astype(np.float32, copy=False)).view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= (np.uint64(MAX_ROWS) - rows.astype(np.uint64)) << np.uint64(1)
    keys |= diff < 0
    return keys


def decode(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (diff float32, row int64) of keys of any shape; zero comes back without a sign."""
    diff = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    negative = (keys & np.uint64(1)).astype(bool)
    rows = MAX_ROWS - ((keys >> np.uint64(1)) & np.uint64(MAX_ROWS)).astype(np.int64)
    return np.where(negative, -diff, diff), rows


def largest(keys: np.ndarray, n: int) -> np.ndarray:
    """Return the `n` largest of each row of keys (T, m): the least of them first, then no order."""
    if not n or keys.shape[1] < n:
        return keys[:, : keys.shape[1] if n else 0]
    return np.partition(keys, keys.shape[1] - n, axis=1)[:, -n:]


def strongest(effects: np.ndarray, k: int) -> np.ndarray:
    """Return the keys of the `k` strongest effects of each row, strongest first.

    Args:
        effects: float32 (n, targets), no NaN.
        k: how many per row; there are fewer if there are fewer targets.

    Returns:
        uint64 (n, min(k, targets)); their `decode` gives (diff, target). Of equal |diff|, the
        smaller target comes first.
    """
    n, count = effects.shape
    targets = np.arange(count)
    keys = np.empty((n, min(k, count)), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        block = encode(effects[start : start + _BLOCK], targets)
        keys[start : start + _BLOCK] = np.sort(largest(block, k), axis=1)[:, ::-1]
    return keys
