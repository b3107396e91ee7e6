"""Contig names: which FASTA contig a name means, and how the output and its paths spell it."""

from collections.abc import Iterable
from urllib.parse import quote

_MITOCHONDRIAL = ("M", "MT")


def _bare(name: str) -> str:
    """Return `name` without a leading `chr` in any case; M and MT in upper case."""
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return bare.upper() if bare.upper() in _MITOCHONDRIAL else bare


def display_name(contig: str) -> str:
    """Return the output's `chrom`: always with `chr` in front, and chrM for M and MT.

    Without the prefix, a partition value 22 would be read back as a number, but X as text.
    """
    bare = _bare(contig)
    return "chrM" if bare in _MITOCHONDRIAL else f"chr{bare}"


def partition_value(chrom: str) -> str:
    """Return `chrom` as the value in `scores/chrom=<value>/`, with special characters as %XX.

    HLA contigs hold `*` and `:`, others `/` or `|`; DuckDB and pyarrow both decode such values.
    """
    return quote(chrom, safe="")


class ContigMap:
    """Finds the FASTA contig for a name of any style.

    Args:
        contigs: the FASTA's contig names, in its order.
    """

    def __init__(self, contigs: Iterable[str]) -> None:
        self.contigs = tuple(contigs)
        self._exact = frozenset(self.contigs)
        self._by_bare: dict[str, str] = {}
        for contig in self.contigs:
            self._by_bare.setdefault(_bare(contig), contig)

    def resolve(self, name: str) -> str | None:
        """Return the FASTA contig that `name` means, or None.

        The exact name is tried first, then the name with `chr` added or removed, then the other
        mitochondrial names (M, MT, chrM and chrMT all mean the same).
        """
        if name in self._exact:
            return name
        bare = _bare(name)
        found = self._by_bare.get(bare)
        if found is None and bare in _MITOCHONDRIAL:
            other = _MITOCHONDRIAL[1 - _MITOCHONDRIAL.index(bare)]
            found = self._by_bare.get(other)
        return found
