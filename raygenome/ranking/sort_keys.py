"""The strongest of many effects, with ties broken the same way everywhere, as one integer each.

A key is a uint64: |diff| as the bits of its float32 (which order as the values do) in the upper
half, below it 2**31 - 1 - row, and in the last bit whether diff is negative. Of two keys the larger
is the stronger effect, and at equal |diff| the smaller row; so a merge of lists is a partition of
integers, whatever order the lists come in. A key gives back its diff and its row exactly, and is
never 0, which stands for "none" where lists of several lengths share an array.
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
        rows: integers (n,), the row that each place of the last axis stands for.

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


def merge(best: np.ndarray, new: np.ndarray, n: int) -> np.ndarray:
    """Return the `n` largest of two lists of keys, row by row.

    (T, a) and (T, b) give (T, min(n, a + b)), each row in descending order. The work is linear in
    a + b, beside sorting n.
    """
    both = np.sort(largest(np.concatenate([best, new], axis=1), n), axis=1)
    return np.ascontiguousarray(both[:, ::-1])


def largest(keys: np.ndarray, n: int) -> np.ndarray:
    """Return the `n` largest of each row of keys (T, m), in no order but for the least, first."""
    if not n or keys.shape[1] < n:
        return keys[:, : keys.shape[1] if n else 0]
    return np.partition(keys, keys.shape[1] - n, axis=1)[:, -n:]


def strongest(effects: np.ndarray, k: int) -> np.ndarray:
    """Return the keys of the `k` strongest effects of each row, strongest first.

    Args:
        effects: float32 (n, targets), no NaN.
        k: how many; fewer where there are fewer targets.

    Returns:
        uint64 (n, min(k, targets)); their `decode` gives (diff, target), equal |diff| in the order
        of the targets.
    """
    n, count = effects.shape
    targets = np.arange(count)
    keys = np.empty((n, min(k, count)), dtype=np.uint64)
    none = np.empty((0, 0), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        block = encode(effects[start : start + _BLOCK], targets)
        keys[start : start + _BLOCK] = merge(none.reshape(len(block), 0), block, k)
    return keys
