"""A genome with known truth: planted motif sites, variants that break some, training windows.

Everything here is a pure function of a seed. The genome, the variants and the training windows each
have a random stream of their own, so that no training window is ever part of a scored genome, not
even with the same seed. `planted_motifs` defines motifs, and when a site is intact or broken.

Coordinates are 0-based and half-open; the VCF that `write_vcf` makes is 1-based, as VCF is.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raygenome.demo.planted_motifs import MOTIFS, Motif
from raygenome.genome.sequence import BASES, N_CODE, decode, reverse_complement

#: Contigs of the default genome and their lengths.
CONTIGS = {"chr1": 600_000, "chr2": 400_000}

#: Least distance, in bases, of a harmless variant from any planted site.
CLEARANCE = 10

_GENOME, _VARIANTS, _WINDOWS = range(3)  # the streams of a seed
_LOCAL_GC_BLOCK = 2_000
_LONGEST_INDEL = 8


class Site(NamedTuple):
    """An intact motif site on the genome; `motif` is an index into `MOTIFS`."""

    contig: str
    start: int
    motif: int
    strand: str

    @property
    def end(self) -> int:
        """Just past the last base of the site."""
        return self.start + len(MOTIFS[self.motif])


class Genome(NamedTuple):
    """Letters by contig (lower case where soft-masked, N in gaps), and the sites in order."""

    sequences: dict[str, bytes]
    sites: list[Site]


class Record(NamedTuple):
    """A VCF record with its truth: for each ALT the motif that it breaks, or None."""

    contig: str
    start: int
    ref: str
    alts: tuple[str, ...]
    truth: tuple[str | None, ...]


def make_genome(
    seed: int, contigs: Mapping[str, int] = CONTIGS, *, sites_per_kb: float = 1.0
) -> Genome:
    """Make contigs of random sequence with motif sites planted on both strands.

    As in a real FASTA, the first bases of a contig and a run inside it are N, and some runs are in
    lower case. Slots of equal length hold one site each, except where it would overlap an N.

    Args:
        seed: the random seed.
        contigs: length by name; the order is kept.
        sites_per_kb: planted sites per thousand bases.
    """
    rng = np.random.default_rng([seed, _GENOME])
    slot = int(1000 / sites_per_kb)
    sequences: dict[str, bytes] = {}
    sites: list[Site] = []
    for contig, length in contigs.items():
        codes = _random_codes(rng, length, block=_LOCAL_GC_BLOCK)
        for gap in (slice(0, length // 100), _run(rng, length, length // 200)):
            codes[gap] = N_CODE
        for first in range(0, length - slot + 1, slot):
            motif = int(rng.integers(len(MOTIFS)))
            start = first + int(rng.integers(slot - len(MOTIFS[motif])))
            site = Site(contig, start, motif, "+-"[rng.integers(2)])
            if N_CODE in codes[site.start : site.end]:
                continue
            drawn = MOTIFS[motif].draw(rng)
            codes[site.start : site.end] = (
                drawn if site.strand == "+" else reverse_complement(drawn)
            )
            sites.append(site)
        sequences[contig] = _soft_mask(rng, decode(codes))
    return Genome(sequences, sites)


def make_variants(genome: Genome, seed: int, *, n: int, n_breaking: int) -> list[Record]:
    """Make `n` records in genome order, of which `n_breaking`, all biallelic SNVs, break a site.

    A breaking SNV puts another base at one firm position of a planted site. The other records are
    mostly SNVs, with some insertions, deletions and records with two ALTs, all at least `CLEARANCE`
    bases away from every planted site.

    Raises:
        ValueError: the genome has fewer than `n_breaking` sites, or too little room for the rest.
    """
    if n_breaking > min(n, len(genome.sites)):
        raise ValueError(f"cannot break {n_breaking} of {len(genome.sites)} sites by {n} records")
    rng = np.random.default_rng([seed, _VARIANTS])
    chosen = rng.choice(len(genome.sites), size=n_breaking, replace=False)
    records = [_breaking_snv(rng, genome, genome.sites[index]) for index in chosen]
    records += _harmless(rng, genome, n - n_breaking)
    order = {contig: index for index, contig in enumerate(genome.sequences)}
    return sorted(records, key=lambda record: (order[record.contig], record.start))


def training_windows(seed: int, n: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Make random windows like the genome, labelled by the motifs with an intact site in them.

    A window holds up to two inserts: an intact site (half of them), a site broken at one firm
    position, or a site with its bases shuffled. Only an intact site sets a label, so that a net
    must learn the whole motif and the effect of one wrong base.

    Returns:
        codes uint8 (n, window), and labels float32 (n, motifs), 0 or 1.
    """
    rng = np.random.default_rng([seed, _WINDOWS])
    codes = _random_codes(rng, n * window, block=window).reshape(n, window)
    labels = np.zeros((n, len(MOTIFS)), dtype=np.float32)
    inserts = rng.choice(3, size=n, p=(0.25, 0.5, 0.25))
    for row in range(n):
        room = window // max(1, inserts[row])  # two inserts take a half of the window each
        for part in range(inserts[row]):
            motif = int(rng.integers(len(MOTIFS)))
            insert, intact = _training_insert(rng, MOTIFS[motif])
            start = part * room + int(rng.integers(room - len(insert) + 1))
            codes[row, start : start + len(insert)] = insert
            labels[row, motif] = max(labels[row, motif], intact)
    return codes, labels


def write_fasta(genome: Genome, path: Path, *, width: int = 60) -> None:
    """Write the genome as FASTA with `width` letters per line."""
    with path.open("wb") as out:
        for contig, letters in genome.sequences.items():
            out.write(b">" + contig.encode() + b"\n")
            out.writelines(
                letters[start : start + width] + b"\n" for start in range(0, len(letters), width)
            )


def write_vcf(records: Iterable[Record], contigs: Mapping[str, int], path: Path) -> None:
    """Write VCF 4.3 as plain text; INFO `TRUTH` names, for each ALT, the motif that it breaks.

    Args:
        records: the records, in the order of the file.
        contigs: length by name, for the header.
        path: the output file.
    """
    with path.open("w", encoding="ascii", newline="\n") as out:
        out.write("##fileformat=VCFv4.3\n")
        out.writelines(f"##contig=<ID={name},length={size}>\n" for name, size in contigs.items())
        out.write('##FILTER=<ID=PASS,Description="All filters passed">\n')
        out.write(
            "##INFO=<ID=TRUTH,Number=A,Type=String,"
            'Description="Planted motif that the allele breaks">\n'
        )
        out.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for number, (contig, start, ref, alts, truth) in enumerate(records, 1):
            info = "TRUTH=" + ",".join(name or "." for name in truth) if any(truth) else "."
            site = f"{contig}\t{start + 1}\tsyn{number}\t{ref}\t{','.join(alts)}"
            out.write(f"{site}\t.\tPASS\t{info}\n")


def _random_codes(rng: np.random.Generator, length: int, *, block: int) -> np.ndarray:
    """Return random codes with a random GC content per block, and CpG rare as in mammals."""
    blocks = -(-length // block)
    gc = np.clip(0.42 + 0.07 * rng.standard_normal(blocks), 0.28, 0.65).repeat(block)[:length]
    is_gc = rng.random(length) < gc
    first = rng.random(length) < 0.5
    codes = np.where(is_gc, np.where(first, 1, 2), np.where(first, 0, 3)).astype(np.uint8)
    cpg = np.flatnonzero((codes[:-1] == 1) & (codes[1:] == 2))
    chance = rng.random(len(cpg))  # methylated CpG decays to TpG, on the other strand to CpA
    codes[cpg[chance < 0.375]] = 3
    codes[cpg[(chance >= 0.375) & (chance < 0.75)] + 1] = 0
    return codes


def _run(rng: np.random.Generator, length: int, size: int) -> slice:
    start = int(rng.integers(length - size + 1))
    return slice(start, start + size)


def _soft_mask(rng: np.random.Generator, letters: str) -> bytes:
    """Return the letters with runs as long as repeats in lower case, a fifth of all letters."""
    masked = np.frombuffer(letters.encode(), dtype=np.uint8).copy()
    for _ in range(len(masked) // 1_500):
        masked[_run(rng, len(masked), min(300, len(masked)))] |= 0x20  # ASCII lower case
    masked[masked == ord("n")] = ord("N")
    return masked.tobytes()


def _training_insert(rng: np.random.Generator, motif: Motif) -> tuple[np.ndarray, bool]:
    """Return an insert for a training window, on a random strand, and whether it is intact."""
    insert, kind = motif.draw(rng), rng.random()
    if kind >= 0.85:
        insert = rng.permutation(insert)
    elif kind >= 0.5:
        insert = motif.break_one(insert, rng)
    return (insert if rng.random() < 0.5 else reverse_complement(insert)), bool(kind < 0.5)


def _breaking_snv(rng: np.random.Generator, genome: Genome, site: Site) -> Record:
    motif = MOTIFS[site.motif]
    offset = int(rng.choice(motif.firm))
    start = site.start + offset if site.strand == "+" else site.end - 1 - offset
    ref = chr(genome.sequences[site.contig][start]).upper()
    alt = BASES[(BASES.index(ref) + int(rng.integers(1, 4))) % 4]
    return Record(site.contig, start, ref, (alt,), (motif.name,))


def _harmless(rng: np.random.Generator, genome: Genome, n: int) -> Iterator[Record]:
    """Yield `n` records at distinct positions, away from N, contig ends and planted sites."""
    free = {contig: _free(letters) for contig, letters in genome.sequences.items()}
    for site in genome.sites:
        near = slice(max(0, site.start - CLEARANCE - _LONGEST_INDEL), site.end + CLEARANCE)
        free[site.contig][near] = False
    places = np.flatnonzero(np.concatenate(list(free.values())))
    if n > len(places):
        raise ValueError(f"cannot make {n} harmless variants at {len(places)} free positions")
    contigs = list(free)
    starts = np.cumsum([0, *map(len, free.values())])  # of each contig in the concatenation
    for place in rng.choice(places, size=n, replace=False):
        index = int(np.searchsorted(starts, place, side="right")) - 1
        contig, start = contigs[index], int(place - starts[index])
        span = genome.sequences[contig][start : start + 1 + _LONGEST_INDEL].decode().upper()
        yield _harmless_record(rng, contig, start, span)


def _free(letters: bytes) -> np.ndarray:
    """Return where the longest deletion may start: bool, one entry per base."""
    known = np.frombuffer(letters, dtype=np.uint8) != ord("N")
    free = np.zeros(len(known), dtype=bool)
    reach = 1 + _LONGEST_INDEL
    if len(known) >= reach:
        free[: len(known) - reach + 1] = np.lib.stride_tricks.sliding_window_view(known, reach).all(
            axis=1
        )
    return free


def _harmless_record(rng: np.random.Generator, contig: str, start: int, span: str) -> Record:
    """Return an SNV, a two-ALT SNV, an insertion or a deletion of the bases in `span`."""
    kind = rng.random()
    ref = span[0]
    others = rng.permutation([base for base in BASES if base != ref]).tolist()
    size = 1 + int(rng.integers(_LONGEST_INDEL))
    if kind < 0.02:
        inserted = decode(rng.integers(4, size=size))
        return Record(contig, start, ref, (ref + inserted,), (None,))
    if kind < 0.04:
        return Record(contig, start, span[: 1 + size], (ref,), (None,))
    alts = tuple(others[: 2 if kind < 0.06 else 1])
    return Record(contig, start, ref, alts, (None,) * len(alts))
