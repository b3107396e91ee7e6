"""DNA as small integers: the alphabet, its complement, and the one-hot table of a model.

Codes are uint8, fixed for the whole program whatever order a model wants its channels in:
A, C, G, T, N = 0, 1, 2, 3, 4. A model's own channel order and its value for N live in a (5, 4)
table that turns codes into one-hot rows, so that the reverse complement, taken on codes, is
right for every channel order.
"""

import numpy as np

BASES = "ACGT"
N_CODE = 4

#: Code of the complementary base, by code.
COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)

_CODE_OF_BYTE = np.full(256, N_CODE, dtype=np.uint8)
for _code, _base in enumerate(BASES):
    _CODE_OF_BYTE[ord(_base)] = _code
    _CODE_OF_BYTE[ord(_base.lower())] = _code
_BYTE_OF_CODE = np.frombuffer(b"ACGTN", dtype=np.uint8)


def encode(sequence: bytes | str) -> np.ndarray:
    """Return the codes of `sequence`, uint8 of its length; a letter that is not ACGT is N."""
    raw = sequence.encode("ascii", "replace") if isinstance(sequence, str) else sequence
    return _CODE_OF_BYTE[np.frombuffer(raw, dtype=np.uint8)]


def decode(codes: np.ndarray) -> str:
    """Return the upper-case letters of a 1-D array of codes."""
    return _BYTE_OF_CODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: np.ndarray) -> np.ndarray:
    """Return the other strand, read 5' to 3': complemented and reversed along the last axis."""
    return COMPLEMENT[codes[..., ::-1]]


def one_hot_table(channels: str, n_value: float) -> np.ndarray:
    """Return the (5, 4) float32 table whose row `code` is the model's input for that base.

    Args:
        channels: the model's channel order, a permutation of ACGT such as "AGCT".
        n_value: the value of all four channels for N (0 in DeepSEA, 0.25 in Basset).

    Raises:
        ValueError: `channels` is not a permutation of ACGT.
    """
    if sorted(channels) != sorted(BASES):
        raise ValueError(f"channels is {channels!r}; it must be a permutation of {BASES}")
    table = np.zeros((5, 4), dtype=np.float32)
    for code, base in enumerate(BASES):
        table[code, channels.index(base)] = 1.0
    table[N_CODE] = n_value
    return table


class MemoryContig:
    """A contig held in memory; a `windows.Sequence`.

    Args:
        codes: uint8 (n,).
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes

    def fetch(self, start: int, end: int) -> np.ndarray:
        """Return the codes of [start, end), 0-based, with N beyond the contig's ends."""
        fetched = np.full(end - start, N_CODE, dtype=np.uint8)
        first, last = max(start, 0), min(end, len(self.codes))
        if first < last:
            fetched[first - start : last - start] = self.codes[first:last]
        return fetched
