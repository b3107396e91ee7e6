"""Planning, compared with a slow version that decides allele by allele, and cutting shards."""

import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from support.builders import random_bases, random_genome, write_fasta, write_vcf

from raygenome.errors import DataError
from raygenome.genome.fasta import Reference
from raygenome.results.run_dir import PLAN, RunDir
from raygenome.scoring.allele_file import read_rows
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.plan import (
    ALLELES_FILE,
    SKIPPED_FILE,
    Plan,
    commit_plan,
    cut,
    load_plan,
    make_plan,
)

WIDTH = 24
GENOME = random_genome(5, chr1=400, chr2=300, chrM=80)
GENOME["chr1"] = GENOME["chr1"][:200] + "NNNRRN" + GENOME["chr1"][206:].lower()
NAMES = {"1": "chr1", "chr1": "chr1", "2": "chr2", "chr2": "chr2", "MT": "chrM", "M": "chrM"}


def planned(vcf: Path, reference: Reference, run: RunDir, **options: Any) -> Plan:
    return make_plan(str(vcf), reference, run, ScoreOptions(**options), window=WIDTH)


def slow_reason(chrom: str, pos: str, ref: str, alt: str) -> str:
    """Return why an allele is skipped, or "" if it is scored, by the rules of the README."""
    ref, alt = ref.upper(), alt.upper()
    if alt in (".", ""):
        return "no_alt"
    if alt == "*":
        return "spanning_del"
    if alt[0] == "<":
        return "symbolic"
    if "[" in alt or "]" in alt or alt[0] == "." or alt[-1] == ".":
        return "breakend"
    if not ref or set(ref + alt) - set("ACGT"):
        return "bad_allele"
    if max(len(ref), len(alt)) > WIDTH:
        return "too_long"
    if chrom not in NAMES:
        return "unknown_contig"
    contig = GENOME[NAMES[chrom]].upper()
    if not re.fullmatch("-?[0-9]+", pos) or not 1 <= int(pos) <= len(contig) - len(ref) + 1:
        return "bad_pos"
    if contig[int(pos) - 1 :][: len(ref)] != ref:
        return "ref_mismatch"
    return ""


def random_record(rng: np.random.Generator) -> tuple[str, str, str, str]:
    chrom = str(rng.choice([*NAMES, "chr1", "chr1", "3", "chrUn_1"]))
    bases = GENOME[NAMES.get(chrom, "chr1")]
    start = int(rng.integers(-3, len(bases) + 3))
    pos = str(start + 1) if rng.random() < 0.95 else str(rng.choice(["x", "", "1e3", "-4", "10.5"]))
    length = int(rng.choice([1, 1, 1, 2, 5, WIDTH, WIDTH + 1]))
    ref = bases[max(start, 0) :][:length] or "A"
    if rng.random() < 0.1:
        ref = str(rng.choice(["N", "R", "acg", ".", "A,C", "-", random_bases(rng, 3)]))
    odd = [".", "*", "<DEL>", "<*>", "A[1:5[", "]1:5]A", ".A", "A.", "R", "-", "", "a", "ACx"]
    alts = [
        random_bases(rng, int(rng.choice([1, 1, 2, 7, WIDTH, WIDTH + 1])))
        if rng.random() < 0.7
        else str(rng.choice(odd))
        for _ in range(int(rng.choice([1, 1, 1, 2, 4])))
    ]
    return chrom, pos, ref, ",".join(alts)


@pytest.mark.parametrize("seed", range(4))
def test_every_allele_against_a_slow_twin(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng([seed, 77])
    records = [random_record(rng) for _ in range(700)]
    vcf = write_vcf(
        tmp_path / "v.vcf", [(c, p, f"r{i}", r, a) for i, (c, p, r, a) in enumerate(records)]
    )
    reference = Reference.open(write_fasta(tmp_path / "genome.fa", GENOME))
    run = RunDir(tmp_path / "run")
    scored, skipped = [], []
    for number, (chrom, pos, ref, alts) in enumerate(records):
        for allele, alt in enumerate(alts.split(","), start=1):
            reason = slow_reason(chrom, pos, ref, alt)
            if reason:
                skipped.append((number, allele, ref, alt, reason))
            else:
                contig = list(GENOME).index(NAMES[chrom])
                scored.append((contig, int(pos) - 1, ref.upper(), alt.upper(), number, allele))
    # The share of mismatches is far too large for the build check, so that is switched off.
    kept = planned(vcf, reference, run, ref_mismatch="keep")
    assert kept.skipped.get("ref_mismatch") is None
    assert kept.mismatched == sum(row[-1] == "ref_mismatch" for row in skipped)

    from raygenome.scoring import build_check

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_check, "SHARE", 1.0)
        plan = planned(vcf, reference, run)
    commit_plan(run, {})
    folder = tmp_path / "run" / PLAN
    rows = read_rows(folder / ALLELES_FILE, 0, plan.scorable).to_pylist()
    keys = ("contig", "start", "ref", "alt", "record", "allele")
    assert [tuple(row[key] for key in keys) for row in rows] == sorted(scored)
    found = pq.read_table(folder / SKIPPED_FILE).to_pylist()
    keys = ("record", "allele", "ref", "alt", "reason")
    assert sorted(tuple(row[key] for key in keys) for row in found) == sorted(skipped)
    assert plan.read == len(scored) + len(skipped)
    assert len({row[-1] for row in skipped}) >= 8
    assert load_plan(run) == plan


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.one_of(st.none(), st.integers(1, 700)),
)
@settings(max_examples=200, deadline=None)
def test_shards_cover_every_row_once(lengths: list[int], size: int | None) -> None:
    edges = np.cumsum([0, *lengths]).tolist()
    runs = [(i, edges[i], edges[i + 1]) for i in range(len(lengths))]
    shards = list(cut(runs, size))
    assert [begin for _, begin, _ in shards] == [0, *(end for _, _, end in shards[:-1])]
    assert shards[-1][2] == edges[-1]
    for contig, begin, end in shards:
        assert edges[contig] <= begin < end <= edges[contig + 1]  # never over two contigs
        assert end - begin <= (size or 65_536)


def test_size_of_shards_follows_the_input() -> None:
    def sizes(n: int) -> set[int]:
        return {end - begin for _, begin, end in cut([(0, 0, n)], None)}

    assert max(sizes(1_000)) == 1_000  # one shard: nothing to share
    assert max(sizes(10_000)) == 3_334
    assert max(sizes(2_048_000)) == 8_000
    assert 60_000 < min(sizes(759_302_267)) <= max(sizes(759_302_267)) <= 65_536


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    vcf = write_vcf(tmp_path / "v.vcf", [("chr1", 5, ".", GENOME["chr1"][4], "<DEL>")])
    reference = Reference.open(write_fasta(tmp_path / "genome.fa", GENOME))
    run = RunDir(tmp_path / "run")
    planned(vcf, reference, run)
    commit_plan(run, {})
    with (tmp_path / "run" / PLAN / SKIPPED_FILE).open("ab") as handle:
        handle.write(b"?")
    with pytest.raises(DataError, match=r"skipped\.draft has changed"):
        load_plan(run)


def test_contigs_that_the_output_cannot_tell_apart(tmp_path: Path) -> None:
    genome = {"1": "ACGTTGCA" * 20, "chr1": "TTGACCAA" * 20}
    reference = Reference.open(write_fasta(tmp_path / "genome.fa", genome))
    records = [("1", 1, ".", "A", "C"), ("chr1", 1, ".", "T", "C")]
    run = RunDir(tmp_path / "run")
    one = write_vcf(tmp_path / "one.vcf", records[:1])
    assert planned(one, reference, run).scorable == 1
    both = write_vcf(tmp_path / "both.vcf", records)
    with pytest.raises(DataError, match="has both 1 and chr1, which are chr1 in the output"):
        planned(both, reference, run)
