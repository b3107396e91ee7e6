"""Windows and labels as bits: four bases a byte, eight labels a byte, N as runs apart.

Axes: N windows, L bases, T targets. Codes are those of `raygenome.genome.sequence`.
"""

import numpy as np

from raygenome.genome.sequence import N_CODE

#: The codes of the four bases in a byte, by byte: uint8 (256, 4), first base in the lowest bits.
BASES_OF_BYTE = (np.arange(256, dtype=np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3


def packed_bases(window: int) -> int:
    """Return how many bytes the bases of a window take."""
    return -(-window // 4)


def packed_labels(targets: int) -> int:
    """Return how many bytes the labels of a window take."""
    return -(-targets // 8)


def pack_bases(codes_NL: np.ndarray) -> np.ndarray:
    """Return codes, uint8 (N, L), as (N, packed_bases(L)); an N is packed as an A."""
    windows, length = codes_NL.shape
    padded = np.zeros((windows, 4 * packed_bases(length)), dtype=np.uint8)
    padded[:, :length] = codes_NL
    padded[padded == N_CODE] = 0
    first, second, third, fourth = np.moveaxis(padded.reshape(windows, -1, 4), 2, 0)
    return first | second << 2 | third << 4 | fourth << 6


def unpack_bases(packed: np.ndarray, window: int) -> np.ndarray:
    """Return the codes, uint8 (N, window), of what `pack_bases` made; N is not known here."""
    return BASES_OF_BYTE[packed].reshape(len(packed), -1)[:, :window]


def runs_of_n(codes_NL: np.ndarray) -> np.ndarray:
    """Return the runs of N, int64 (runs, 3): row, start, end (half-open), in order."""
    is_n = np.zeros((len(codes_NL), codes_NL.shape[1] + 2), dtype=np.int8)
    is_n[:, 1:-1] = codes_NL == N_CODE
    if not is_n.any():
        return np.empty((0, 3), dtype=np.int64)
    steps = np.diff(is_n, axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return np.column_stack([starts, ends[:, 1]])


def pack_labels(labels_NT: np.ndarray) -> np.ndarray:
    """Return 0/1 labels, uint8 (N, T), as (N, packed_labels(T)), the first in the lowest bit."""
    return np.packbits(labels_NT, axis=1, bitorder="little")


def unpack_labels(packed: np.ndarray, targets: int) -> np.ndarray:
    """Return the labels, uint8 (N, targets), of what `pack_labels` made."""
    return np.unpackbits(packed, axis=1, count=targets, bitorder="little")
