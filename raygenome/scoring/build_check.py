"""The check against a wrong genome build: the share of REF alleles that differ from the FASTA."""

import numpy as np

from raygenome.errors import DataError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.fasta import Reference

#: The first SAMPLE alleles are checked; a run stops when a larger share than SHARE differs.
SAMPLE, SHARE = 10_000, 0.05
#: Fewer mismatches than this stop no run: in a VCF of twenty lines one typo is 5 %.
_FEWEST = 10

#: Length of chromosome 1 in the human assemblies that are in use, in bases.
_CHR1 = {249_250_621: "GRCh37/hg19", 248_956_422: "GRCh38/hg38", 248_387_328: "T2T-CHM13"}


class GenomeBuildCheck:
    """Counts REF mismatches and stops a run that most likely has the wrong genome build.

    Args:
        mode: what stops the run: "skip" too large a share of mismatches, "error" the first
            mismatch, "keep" nothing.
        header_contigs: contig lengths that the VCF header states, for the message.
        reference: the genome.
        contigs: its contig names.
    """

    def __init__(
        self,
        mode: str,
        header_contigs: dict[str, int | None],
        reference: Reference,
        contigs: ContigMap,
    ) -> None:
        self._mode = mode
        self._reference = reference
        self._hint = _build_hint(header_contigs, reference, contigs)
        self.checked = 0
        self.mismatched = 0

    def update(self, differs: np.ndarray) -> None:
        """Count the next alleles, in input order: bool (n,), whether REF differs from the FASTA.

        Raises:
            DataError: more than 5 % of the first 10,000 differ.
        """
        if self._mode == "skip" and self.checked < SAMPLE:
            seen = differs[: SAMPLE - self.checked]
            mismatched = self.mismatched + int(seen.sum())
            checked = self.checked + len(seen)
            if mismatched > SAMPLE * SHARE or (checked == SAMPLE and mismatched > checked * SHARE):
                raise self._stop(mismatched, checked)
        self.checked += len(differs)
        self.mismatched += int(differs.sum())

    def finish(self) -> None:
        """Check an input that ended before 10,000 alleles.

        Raises:
            DataError: more than 5 % of them differ, and not just a few alleles.
        """
        if self._mode != "skip" or self.checked >= SAMPLE or self.mismatched < _FEWEST:
            return
        if self.mismatched > self.checked * SHARE:
            raise self._stop(self.mismatched, self.checked)

    def first(self, chrom: str, pos: int, ref: str, found: str) -> DataError:
        """Return the error that `--ref-mismatch error` stops with; `pos` is 1-based."""
        return DataError(
            f"{chrom}:{pos}: REF is {ref} in the VCF, {self._reference.path} has {found} there; "
            f"wrong genome build?{self._hint}",
            "give the FASTA of the VCF's build, or use --ref-mismatch skip",
        )

    @property
    def stops_at_first(self) -> bool:
        """Whether one mismatch ends the run."""
        return self._mode == "error"

    def _stop(self, mismatched: int, checked: int) -> DataError:
        return DataError(
            f"wrong genome build? {mismatched:,} of the first {checked:,} alleles have a REF that "
            f"differs from {self._reference.path}.{self._hint}",
            "give the FASTA of the VCF's build, or use --ref-mismatch keep to score them anyway",
        )


def _build_hint(
    header_contigs: dict[str, int | None], reference: Reference, contigs: ContigMap
) -> str:
    """Return a sentence on how the VCF header and the FASTA differ, or nothing."""
    for name, length in header_contigs.items():
        known = contigs.resolve(name)
        if known is None or length is None or reference.contigs[known] == length:
            continue
        return (
            f" The VCF header gives {name} {length:,} bases{_named(length)}, "
            f"the FASTA {reference.contigs[known]:,}{_named(reference.contigs[known])}."
        )
    return ""


def _named(length: int) -> str:
    return f" ({_CHR1[length]})" if length in _CHR1 else ""
