"""Every awkward allele is in one table with one reason; none is dropped."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.builders import random_genome, write_fasta, write_model, write_vcf

import raygenome
from raygenome.errors import DataError
from raygenome.results.run_dir import read_run
from raygenome.scoring.allele_filter import SKIP_REASONS

GENOME = random_genome(3, chr1=900, chr2=400, chrM=300)
GENOME["chr2"] = GENOME["chr2"][:100] + "N" * 20 + GENOME["chr2"][120:].lower()


def base(chrom: str, pos: int, length: int = 1) -> str:
    return GENOME[chrom][pos - 1 : pos - 1 + length].upper()


def other(bases: str) -> str:
    """Return bases of the same length that differ at each position."""
    return bases.translate(str.maketrans("ACGT", "CGTA"))


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "genome.fa", GENOME)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "stub")


def scored(path: Path) -> list[dict[str, object]]:
    return [
        row
        for part in read_run(path)["parts"]
        for row in pq.read_table(path / part["path"]).to_pylist()
    ]


def skipped(path: Path) -> list[dict[str, object]]:
    return pq.read_table(path / "skipped.parquet").to_pylist()


A = base("chr1", 50)
CASES = {
    "no_alt": ("chr1", 50, A, "."),
    "spanning_del": ("chr1", 50, A, "*"),
    "symbolic": ("chr1", 50, A, "<DEL>"),
    "symbolic gvcf": ("chr1", 50, A, "<NON_REF>"),
    "symbolic star": ("chr1", 50, A, "<*>"),
    "breakend": ("chr1", 50, A, f"{A}]chr2:20]"),
    "breakend mate": ("chr1", 50, A, f"[chr2:20[{A}"),
    "breakend single": ("chr1", 50, A, f".{A}"),
    "breakend single end": ("chr1", 50, A, f"{A}."),
    "bad_allele iupac": ("chr1", 50, A, "R"),
    "bad_allele n": ("chr1", 50, A, "N"),
    "bad_allele dash": ("chr1", 50, A, "-"),
    "bad_allele digits": ("chr1", 50, A, "12"),
    "bad_allele ref": ("chr1", 50, "N", "A"),
    "bad_allele ref comma": ("chr1", 50, "C,A", "G"),
    "too_long ref": ("chr1", 50, base("chr1", 50, 41), "A"),
    "too_long alt": ("chr1", 50, A, "ACGTC" * 9),
    "unknown_contig": ("chrUn", 50, "A", "C"),
    "bad_pos zero": ("chr1", 0, "A", "C"),
    "bad_pos text": ("chr1", "12a", "A", "C"),
    "bad_pos huge": ("chr1", 9_999_999_999, "A", "C"),
    "bad_pos behind": ("chr1", 901, "A", "C"),
    "bad_pos over the end": ("chr1", 900, base("chr1", 900) + "A", "C"),
    "ref_mismatch": ("chr1", 50, other(A), A),
    "ref_mismatch long": ("chr1", 50, base("chr1", 50, 2) + other(base("chr1", 52)), "G"),
    "ref_mismatch in N": ("chr2", 105, "A", "C"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_awkward_allele_has_its_reason(
    tmp_path: Path, fasta: Path, model: Path, name: str
) -> None:
    chrom, pos, ref, alt = CASES[name]
    fine = ("chr1", 60, "fine", base("chr1", 60), other(base("chr1", 60)))
    vcf = write_vcf(tmp_path / "v.vcf", [(chrom, pos, "odd", ref, alt), fine])
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    reason = name.split(" ")[0]
    assert run.counts == {"read": 2, "scored": 1, "filtered": 0, "skipped": {reason: 1}}
    (row,) = skipped(run.path)
    assert (row["id"], row["ref"], row["alt"], row["reason"]) == ("odd", ref, alt, reason)
    assert (row["record"], row["allele"]) == (0, 1)
    assert [row["id"] for row in scored(run.path)] == ["fine"]


def test_every_reason_has_a_case() -> None:
    assert {name.split(" ")[0] for name in CASES} | {"too_many_alleles"} == set(SKIP_REASONS)


def test_a_record_with_too_many_alleles(tmp_path: Path, fasta: Path, model: Path) -> None:
    alts = ",".join(["*"] * 32_767 + [other(A)])
    vcf = write_vcf(tmp_path / "v.vcf", [("chr1", 50, ".", A, alts)])
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    assert run.counts["skipped"] == {"spanning_del": 32_767, "too_many_alleles": 1}
    assert skipped(run.path)[-1]["allele"] == 32_768


def test_mixed_alts_of_one_record_keep_their_numbers(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    alt = other(A)
    vcf = write_vcf(tmp_path / "v.vcf", [("chr1", 50, "x", A, f"<DEL>,{alt},*,{alt}{alt}")])
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    assert sorted((row["alt"], row["allele"]) for row in scored(run.path)) == [
        (alt, 2),
        (alt * 2, 4),
    ]
    assert [(row["reason"], row["allele"]) for row in skipped(run.path)] == [
        ("symbolic", 1),
        ("spanning_del", 3),
    ]


def test_lower_case_is_scored_and_alt_equal_to_ref_is_zero(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    records = [
        ("chr1", 70, "low", base("chr1", 70).lower(), other(base("chr1", 70)).lower()),
        ("chr1", 80, "same", base("chr1", 80), base("chr1", 80)),
        ("chr2", 200, "masked", base("chr2", 200), other(base("chr2", 200))),
    ]
    vcf = write_vcf(tmp_path / "v.vcf", records)
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    low, same, masked = scored(run.path)
    assert (low["ref"], low["alt"]) == (base("chr1", 70), other(base("chr1", 70)))
    assert same["score"] == 0
    assert low["score"] > 0 < masked["score"]


@pytest.mark.parametrize(
    ("written", "shown"), [("1", "chr1"), ("chr1", "chr1"), ("MT", "chrM"), ("chrMT", "chrM")]
)
def test_contig_names_of_another_style(
    tmp_path: Path, fasta: Path, model: Path, written: str, shown: str
) -> None:
    ref = base(shown, 100)
    vcf = write_vcf(tmp_path / "v.vcf", [(written, 100, ".", ref, other(ref))])
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    assert [row["chrom"] for row in scored(run.path)] == [shown]
    assert run.document["parts"][0]["path"].startswith(f"scores/chrom={shown}/")


def mismatching(n: int, wrong: int) -> list[tuple[str, int, str, str, str]]:
    return [
        ("chr1", 100 + i, ".", base("chr1", 100 + i), "A" * 3)
        if i >= wrong
        else ("chr1", 100 + i, ".", other(base("chr1", 100 + i)), "A" * 3)
        for i in range(n)
    ]


def test_a_wrong_genome_build_stops_the_run_before_it_starts(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    header = "##contig=<ID=chr1,length=248956422>\n"
    vcf = write_vcf(tmp_path / "v.vcf", mismatching(200, 20), header=header)
    with pytest.raises(DataError, match=r"wrong genome build.*20 of the first 200.*GRCh38"):
        raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_few_mismatches_are_skipped_and_counted(tmp_path: Path, fasta: Path, model: Path) -> None:
    vcf = write_vcf(tmp_path / "v.vcf", mismatching(200, 9))
    run = raygenome.score(vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0)
    assert run.counts["skipped"] == {"ref_mismatch": 9}


def test_the_build_check_looks_at_the_first_ten_thousand(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    wrong = ("chr1", 50, ".", other(A), A)
    right = ("chr1", 50, ".", A, other(A))
    late = [right] * 10_000 + [wrong] * 700
    vcf = write_vcf(tmp_path / "late.vcf", late)
    options = {"model": model, "fasta": fasta, "workers": 0}
    run = raygenome.score(vcf, out=tmp_path / "late", **options)
    assert run.counts["skipped"] == {"ref_mismatch": 700}
    vcf = write_vcf(tmp_path / "early.vcf", [right] * 9_000 + [wrong] * 501 + [right] * 9_000)
    with pytest.raises(DataError, match="501 of the first"):
        raygenome.score(vcf, out=tmp_path / "early", **options)


def test_error_stops_at_the_first_mismatch(tmp_path: Path, fasta: Path, model: Path) -> None:
    vcf = write_vcf(tmp_path / "v.vcf", [("chr1", 50, ".", other(A), A)])
    with pytest.raises(DataError, match=rf"chr1:50: REF is {other(A)} in the VCF.* has {A} there"):
        raygenome.score(
            vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0, ref_mismatch="error"
        )


def test_keep_scores_alt_against_the_genome(tmp_path: Path, fasta: Path, model: Path) -> None:
    """As kipoi-veff2: the reference window is the genome's, so ALT = genome has no effect."""
    alt = other(A)
    records = [
        ("chr1", 50, "wrong", other(alt), alt),
        ("chr1", 50, "right", A, alt),
        ("chr1", 50, "back", alt, A),
    ]
    vcf = write_vcf(tmp_path / "v.vcf", records)
    run = raygenome.score(
        vcf, model=model, fasta=fasta, out=tmp_path / "run", workers=0, ref_mismatch="keep"
    )
    rows = {row["id"]: row for row in scored(run.path)}
    assert rows["wrong"]["top"] == rows["right"]["top"]
    assert rows["back"]["score"] == 0
    assert run.document["ref_mismatches"] == 2


def test_filters_and_regions_are_counted_as_filtered(
    tmp_path: Path, fasta: Path, model: Path
) -> None:
    rng = np.random.default_rng(1)
    lines = ["##fileformat=VCFv4.3", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for pos in range(100, 200):
        kind = ["PASS", "q10", "q10;s50", "."][int(rng.integers(0, 4))]
        ref = base("chr1", pos)
        lines.append(f"1\t{pos}\t{kind}\t{ref}\t{other(ref)}\t.\t{kind}\t.")
    lines.append("chrUn\t5\tPASS\tA\tC\t.\tPASS\t.")
    vcf = tmp_path / "v.vcf"
    vcf.write_text("\n".join(lines) + "\n")
    bed = tmp_path / "r.bed"
    bed.write_text("chr1\t119\t130\n")
    options = {"model": model, "fasta": fasta, "workers": 0}

    passing = raygenome.score(vcf, out=tmp_path / "f", apply_filters=["PASS", "s50"], **options)
    assert {row["id"] for row in scored(passing.path)} == {"PASS", "q10;s50"}
    assert passing.counts["skipped"] == {"unknown_contig": 1}
    assert (
        passing.counts["read"] == 101 == (passing.counts["scored"] + passing.counts["filtered"] + 1)
    )
    for name, chosen in (("r", {"regions": "chr1:120-130"}), ("b", {"regions_file": [bed]})):
        run = raygenome.score(vcf, out=tmp_path / name, **chosen, **options)
        assert [row["pos"] for row in scored(run.path)] == list(range(120, 131))
        assert run.counts == {"read": 101, "scored": 11, "filtered": 90, "skipped": {}}
