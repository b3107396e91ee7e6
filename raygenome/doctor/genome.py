"""Whether a FASTA and its index are valid."""

from raygenome.doctor.finding import Finding, failed
from raygenome.errors import RaygenomeError
from raygenome.genome.fasta import Reference

#: Bases that are read at each end of a contig, and the largest number of contigs to read.
_ENDS, _CONTIGS = 1000, 100
_DO = "give the path or URL of a FASTA with --fasta"


def check_fasta(place: str) -> list[Finding]:
    """Return whether a run can use a FASTA: its contigs, and an index that fits it.

    Args:
        place: a path, or a URL, which is downloaded as a run would do.
    """
    try:
        reference = Reference.open(place)
    except (RaygenomeError, OSError) as error:
        return [failed("FASTA", error, _DO)]
    try:
        return [_describe(reference)]
    except (RaygenomeError, OSError) as error:
        return [failed("FASTA", error, _DO)]
    finally:
        reference.close()


def _describe(reference: Reference) -> Finding:
    """Return the finding on a FASTA, after reading the ends of its contigs."""
    contigs = reference.contigs
    for name, length in list(contigs.items())[:_CONTIGS]:
        reference.fetch(name, 0, _ENDS)
        reference.fetch(name, max(length - _ENDS, 0), length)
    total = sum(contigs.values())
    first = next(iter(contigs))
    counts = f"{len(contigs):,} contig{'s' * (len(contigs) != 1)}, {total:,} bases"
    return Finding(
        "FASTA", "ok", f"{reference.path.name}: {counts}; {first} has {contigs[first]:,}"
    )
