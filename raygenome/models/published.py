"""The description of a file of published weights; each net's `published.py` lists its files."""

from typing import NamedTuple


class PublishedFile(NamedTuple):
    """One file of published weights.

    Attributes:
        architecture: the net that the weights are for.
        url: where it is.
        md5: of the file, in hex.
        size: in bytes, approximate.
        licence: of the weights.
    """

    architecture: str
    url: str
    md5: str
    size: int
    licence: str
