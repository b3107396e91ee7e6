"""The synthetic genome: its truth table agrees with its sequence, which is searched again here."""

from pathlib import Path

import numpy as np
import pytest

from raygenome.demo import synthetic
from raygenome.demo.planted_motifs import MOTIFS, SLACK_BITS, Motif
from raygenome.demo.synthetic import (
    CLEARANCE,
    Genome,
    Record,
    make_genome,
    make_variants,
    training_windows,
    write_fasta,
    write_vcf,
)
from raygenome.genome.sequence import N_CODE, encode, reverse_complement

CONTIGS = {"chr1": 90_000, "chrX": 60_000}
SEEDS = [0, 1, 20_26]

MOTIF_OF = {motif.name: motif for motif in MOTIFS}


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def genome(seed: int) -> Genome:
    return make_genome(seed, CONTIGS, sites_per_kb=2)


@pytest.fixture
def records(genome: Genome, seed: int) -> list[Record]:
    return make_variants(genome, seed, n=1_500, n_breaking=150)


def bits(motif: Motif, letters: str) -> float:
    """The score of a site, one position at a time."""
    rows = zip(motif.frequencies, letters.upper(), strict=True)
    return sum(float(np.log2(row["ACGT".index(letter)])) for row, letter in rows)


def other_strand(letters: str) -> str:
    return letters.upper()[::-1].translate(str.maketrans("ACGT", "TGCA"))


def intact_sites(motif: Motif, codes: np.ndarray) -> list[tuple[int, str]]:
    """Every (start, strand) of an intact site in `codes`, planted or there by chance."""
    found = []
    sites = np.lib.stride_tricks.sliding_window_view(codes, len(motif))
    known = np.flatnonzero((sites != N_CODE).all(axis=1))
    for strand, read in (("+", sites[known]), ("-", reverse_complement(sites[known]))):
        found += [
            (int(known[i]), strand) for i in np.flatnonzero(motif.score(read) >= motif.threshold)
        ]
    return found


def test_motifs_are_distributions_with_firm_positions() -> None:
    for motif in MOTIFS:
        assert motif.frequencies.shape == (len(motif), 4)
        assert np.allclose(motif.frequencies.sum(axis=1), 1)
        assert motif.frequencies.min() > 0
        information = 2 * len(motif) + (motif.frequencies * np.log2(motif.frequencies)).sum()
        assert information > 14, motif.name
        assert np.log2(0.97 / 0.01) > SLACK_BITS
    assert len({motif.name.casefold() for motif in MOTIFS}) == len(MOTIFS)


def test_motif_reads_its_pattern() -> None:
    motif = Motif("toy", "AcRn")
    expected = [
        [0.97, 0.01, 0.01, 0.01],
        [0.10, 0.70, 0.10, 0.10],
        [0.48, 0.02, 0.48, 0.02],
        [0.25, 0.25, 0.25, 0.25],
    ]
    assert np.allclose(motif.frequencies, expected)
    assert motif.firm.tolist() == [0]
    assert motif.score(encode("ACGT")) == pytest.approx(bits(motif, "ACGT"))


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.name)
def test_drawn_sites_are_intact_and_broken_ones_are_not(motif: Motif) -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        site = motif.draw(rng)
        broken = motif.break_one(site, rng)
        assert motif.score(site) >= motif.threshold > motif.score(broken)
        assert (site != broken).sum() == 1
        # A palindrome reads the same on the other strand: it must be broken there too.
        assert motif.score(reverse_complement(broken)) < motif.threshold


def test_genome_is_a_function_of_its_arguments(genome: Genome, seed: int) -> None:
    assert make_genome(seed, CONTIGS, sites_per_kb=2) == genome
    assert make_genome(seed + 1, CONTIGS, sites_per_kb=2) != genome


def test_genome_looks_like_one(genome: Genome) -> None:
    assert {name: len(letters) for name, letters in genome.sequences.items()} == CONTIGS
    for letters in genome.sequences.values():
        assert set(letters) == set(b"ACGTNacgt")
        assert letters.startswith(b"N" * 100)
        upper = letters.upper()
        share = {base: upper.count(base) / len(upper) for base in (b"A", b"C", b"G", b"T", b"CG")}
        assert 0.36 < share[b"C"] + share[b"G"] < 0.48
        assert share[b"CG"] < 0.5 * share[b"C"] * share[b"G"]
        assert 0.1 < sum(map(letters.count, (b"a", b"c", b"g", b"t"))) / len(letters) < 0.3


def test_genome_is_not_periodic(genome: Genome) -> None:
    for letters in genome.sequences.values():
        codes = encode(letters)
        words = np.lib.stride_tricks.sliding_window_view(codes, 32)
        words = words[(words != N_CODE).all(axis=1)]
        assert len(np.unique(words, axis=0)) == len(words)


def test_planted_sites_are_where_they_are_said_to_be(genome: Genome) -> None:
    assert len(genome.sites) > 0.9 * 2 * sum(CONTIGS.values()) / 1_000
    assert {site.motif for site in genome.sites} == set(range(len(MOTIFS)))
    assert {site.strand for site in genome.sites} == {"+", "-"}
    for site in genome.sites:
        letters = genome.sequences[site.contig][site.start : site.end].decode()
        read = letters if site.strand == "+" else other_strand(letters)
        motif = MOTIFS[site.motif]
        assert bits(motif, read) >= motif.threshold
    for one, next_one in zip(genome.sites, genome.sites[1:], strict=False):
        assert one.contig != next_one.contig or one.end <= next_one.start


def test_chance_sites_are_rare(genome: Genome) -> None:
    """Sites that occur by chance would make harmless variants matter."""
    for index, motif in enumerate(MOTIFS):
        planted = {(site.contig, site.start) for site in genome.sites if site.motif == index}
        found = {
            (contig, start)
            for contig, letters in genome.sequences.items()
            for start, _ in intact_sites(motif, encode(letters))
        }
        assert planted <= found
        assert len(found - planted) < 15, motif.name


def test_records_are_sorted_and_agree_with_the_genome(
    genome: Genome, records: list[Record]
) -> None:
    assert len(records) == 1_500
    order = [(list(CONTIGS).index(record.contig), record.start) for record in records]
    assert order == sorted(set(order)), "sorted, and no position twice"
    for record in records:
        letters = genome.sequences[record.contig].upper()
        assert letters[record.start : record.start + len(record.ref)].decode() == record.ref
        assert len(record.alts) == len(record.truth) == len(set(record.alts))
        for alt in (record.ref, *record.alts):
            assert set(alt) <= set("ACGT")
        assert record.ref not in record.alts


def test_records_are_of_every_kind(records: list[Record]) -> None:
    kinds = {
        "insertion" if len(record.alts[0]) > len(record.ref) else
        "deletion" if len(record.alts[0]) < len(record.ref) else
        "two ALTs" if len(record.alts) > 1 else "SNV"
        for record in records
    }  # fmt: skip
    assert kinds == {"insertion", "deletion", "two ALTs", "SNV"}


def test_breaking_alleles_break_and_others_keep_away(genome: Genome, records: list[Record]) -> None:
    breaking = [record for record in records if any(record.truth)]
    assert len(breaking) == 150
    for record in records:
        end = record.start + len(record.ref)
        touched = [
            site
            for site in genome.sites
            if site.contig == record.contig
            and site.start - CLEARANCE < end
            and record.start < site.end + CLEARANCE
        ]
        if record not in breaking:
            assert touched == []
            continue
        (site,) = touched
        letters = genome.sequences[site.contig][site.start : site.end].decode().upper()
        inside = record.start - site.start
        mutant = letters[:inside] + record.alts[0] + letters[inside + 1 :]
        assert len(mutant) == len(letters)
        motif = MOTIF_OF[record.truth[0] or ""]
        assert MOTIFS[site.motif] is motif
        read = mutant if site.strand == "+" else other_strand(mutant)
        assert bits(motif, read) < motif.threshold
        assert bits(motif, other_strand(read)) < motif.threshold


def test_variants_are_a_function_of_the_seed(genome: Genome, seed: int) -> None:
    first = make_variants(genome, seed, n=300, n_breaking=30)
    assert make_variants(genome, seed, n=300, n_breaking=30) == first
    assert make_variants(genome, seed + 1, n=300, n_breaking=30) != first


def test_too_many_variants_are_refused() -> None:
    genome = make_genome(0, {"chr1": 3_000})
    with pytest.raises(ValueError, match="cannot break 50 of 3 sites by 100 records"):
        make_variants(genome, 0, n=100, n_breaking=50)
    with pytest.raises(ValueError, match="cannot make 5000 harmless variants at"):
        make_variants(genome, 0, n=5_000, n_breaking=0)


@pytest.mark.slow
def test_labels_say_which_windows_hold_an_intact_site() -> None:
    codes, labels = training_windows(3, 2_000, 200)
    assert codes.shape == (2_000, 200)
    assert codes.dtype == np.uint8
    assert labels.shape == (2_000, len(MOTIFS))
    for index, motif in enumerate(MOTIFS):
        found = np.array([bool(intact_sites(motif, window)) for window in codes])
        labelled = labels[:, index] == 1
        assert found[labelled].all()
        # An unlabelled window has one by chance alone, or by a shuffle that undid itself.
        assert found[~labelled].mean() < 0.01
        assert 0.05 < labelled.mean() < 0.12


def test_training_windows_are_a_function_of_the_seed() -> None:
    first, again, other = (training_windows(seed, 50, 200)[0] for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_shares_no_sequence_with_the_genome_of_its_seed() -> None:
    codes, _ = training_windows(7, 400, 200)
    genome = make_genome(7, {"chr1": 80_000})
    words = {window[start : start + 30].tobytes() for window in codes for start in range(170)}
    genome_codes = encode(genome.sequences["chr1"])
    windows = np.lib.stride_tricks.sliding_window_view(genome_codes, 30)
    assert not words & {window.tobytes() for window in windows}


def test_fasta_and_vcf_read_back(tmp_path: Path, genome: Genome, records: list[Record]) -> None:
    fasta, vcf = tmp_path / "g.fa", tmp_path / "v.vcf"
    write_fasta(genome, fasta, width=70)
    write_vcf(records, CONTIGS, vcf)

    sequences: dict[str, bytes] = {}
    for entry in fasta.read_bytes().split(b">")[1:]:
        name, *lines = entry.split(b"\n")
        assert max(map(len, lines)) == 70
        sequences[name.decode()] = b"".join(lines)
    assert sequences == genome.sequences

    lines = vcf.read_text().splitlines()
    assert lines[0] == "##fileformat=VCFv4.3"
    assert "##contig=<ID=chrX,length=60000>" in lines
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    read = [(row[0], int(row[1]) - 1, row[3], tuple(row[4].split(",")), row[7]) for row in rows]
    assert [entry[:4] for entry in read] == [record[:4] for record in records]
    for (*_, info), record in zip(read, records, strict=True):
        if any(record.truth):
            assert info == f"TRUTH={record.truth[0]}"
        else:
            assert info == "."
    assert len({row[2] for row in rows}) == len(rows)


def test_truth_is_written_for_each_alt(tmp_path: Path) -> None:
    vcf = tmp_path / "v.vcf"
    write_vcf([Record("chr1", 9, "A", ("C", "G"), (None, "CTCF"))], {"chr1": 50}, vcf)
    assert vcf.read_text().splitlines()[-1] == "chr1\t10\tsyn1\tA\tC,G\t.\tPASS\tTRUTH=.,CTCF"


def test_default_genome_is_the_demo_s() -> None:
    genome = make_genome(0)
    assert {name: len(letters) for name, letters in genome.sequences.items()} == synthetic.CONTIGS
    assert len(genome.sites) > 900
