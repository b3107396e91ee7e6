"""Regions: strings, BED files, overlaps against a brute force."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vcf_files import bgzf

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.intervals import OPEN_END, Regions, load_regions, parse_region

CONTIGS = ContigMap(["chr1", "chr2", "chr20", "chrM", "HLA-A*01:01", "HLA-A*01:01:02", "odd,name"])
resolve = CONTIGS.resolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr20", ("chr20", 0, OPEN_END)),
        ("20", ("chr20", 0, OPEN_END)),
        ("MT:5-6", ("chrM", 4, 6)),
        ("chr20:1000", ("chr20", 999, 1000)),
        ("chr20:1,000-2,000", ("chr20", 999, 2000)),
        ("chr20:1,000-", ("chr20", 999, OPEN_END)),
        ("20:7-7", ("chr20", 6, 7)),
        ("HLA-A*01:01", ("HLA-A*01:01", 0, OPEN_END)),
        ("HLA-A*01:01:02", ("HLA-A*01:01:02", 0, OPEN_END)),
        ("HLA-A*01:01:5-10", ("HLA-A*01:01", 4, 10)),
        ("HLA-A*01:01:02:5", ("HLA-A*01:01:02", 4, 5)),
    ],
)
def test_one_region(text: str, expected: tuple[str, int, int]) -> None:
    assert parse_region(text, resolve) == expected


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UsageError, "'' is not of the form chr20"),
        ("chr20:", UsageError, "is not of the form"),
        ("chr20:a-b", UsageError, "is not of the form"),
        ("chr20:5-3-1", UsageError, "is not of the form"),
        ("chr20:-5", UsageError, "is not of the form"),
        ("chr20:0-5", UsageError, "positions count from 1"),
        ("chr20:9-5", UsageError, "is empty"),
        ("chr20:1-99999999999999999999", UsageError, "is empty"),
        ("chr5", DataError, "contig 'chr5' is not in the reference, which has chr1, chr2,.* ...$"),
        ("chr5:1-2", DataError, "region 'chr5:1-2': contig 'chr5' is not in the reference"),
        ("chr5:x", DataError, "contig 'chr5:x' is not in the reference"),
        (":1-2", DataError, "contig ':1-2' is not in the reference"),
    ],
)
def test_no_region(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_region(text, resolve, known=CONTIGS.contigs)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("chr1,chr20", ["chr1:0-", "chr20:0-"]),
        ("1,2,20", ["chr1:0-", "chr2:0-", "chr20:0-"]),
        ("1:1,000-2,000,2:5", ["chr1:999-2000", "chr2:4-5"]),
        ("1:1,000,2:1,000,000-1,000,001", ["chr1:999-1000", "chr2:999999-1000001"]),
        ("1:100,200", ["chr1:100199-100200"]),
        ("1:100, 2", ["chr1:99-100", "chr2:0-"]),
        ("chr2:7-9,20", ["chr2:6-9", "chr20:0-"]),
        ("odd,name", ["odd,name:0-"]),
    ],
)
def test_lists(spec: str, expected: list[str]) -> None:
    found = load_regions([spec], [], resolve).intervals()
    assert [f"{c}:{s}-{'' if e == OPEN_END else e}" for c, s, e in found] == expected


def brute_force(intervals: list[tuple[str, int, int]], contig: str, start: int, end: int) -> bool:
    bases = {base for name, a, b in intervals if name == contig for base in range(a, b)}
    return not bases.isdisjoint(range(start, end))


spans = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))
intervals_of_two = st.lists(
    st.tuples(st.sampled_from(["chr1", "chr2"]), spans).map(lambda i: (i[0], *i[1])), max_size=12
)


@given(intervals_of_two, st.lists(st.tuples(st.integers(-5, 80), st.integers(0, 9)), max_size=20))
def test_overlaps(intervals: list[tuple[str, int, int]], queries: list[tuple[int, int]]) -> None:
    regions = Regions(intervals)
    start = np.array([s for s, _ in queries], dtype=np.int64)
    end = start + np.array([length for _, length in queries], dtype=np.int64)
    for contig in ("chr1", "chr2", "chr3"):
        found = regions.overlaps(contig, start, end)
        assert found.dtype == bool
        assert found.tolist() == [
            brute_force(intervals, contig, s, e)
            for s, e in zip(start.tolist(), end.tolist(), strict=True)
        ]


@given(intervals_of_two)
def test_merged(intervals: list[tuple[str, int, int]]) -> None:
    merged = list(Regions(intervals).intervals())
    assert merged == sorted(merged)
    covered = [(c, base) for c, s, e in merged for base in range(s, e)]
    assert len(covered) == len(set(covered))
    assert set(covered) == {(c, base) for c, s, e in intervals for base in range(s, e)}
    assert len(Regions(intervals)) == len(merged)
    for (one, _, end), (other, start, _) in itertools.pairwise(merged):
        assert one != other or end < start


def test_an_open_end_reaches_any_position() -> None:
    regions = load_regions(["chr1:101-"], [], resolve)
    start = np.array([99, 100, 10**9, 2**40])
    assert regions.overlaps("chr1", start, start + 1).tolist() == [False, True, True, True]


def test_digest_is_of_the_bases(tmp_path: Path) -> None:
    bed = tmp_path / "x.bed"
    bed.write_text("1\t10\t20\n1\t15\t30\n")
    one = load_regions(["chr2:5-7"], [bed], resolve)
    assert one.digest() == load_regions(["2:5-6,2:7", "1:11-30"], [], resolve).digest()
    assert one.digest() != load_regions(["2:5-6,2:7", "1:11-31"], [], resolve).digest()


BED = (
    "browser position chr1:1-100\r\n"
    'track name="a b"\tdescription="c"\r\n'
    "# a comment\r\n"
    "chrom\tchromStart\tchromEnd\tname\r\n"
    "\r\n"
    "chr20\t5\t10\tpeak\t7.5\r\n"
    "20\t10\t12\r\n"
    "MT\t0\t3\r\n"
    "chr20 100 200\r\n"
    "chr20\t50\t50\r\n"
    "chr20\t90\t120"
)


def test_bed(tmp_path: Path) -> None:
    stored = {
        "x.bed": BED.encode(),
        "bom.bed": b"\xef\xbb\xbf" + BED.replace("\r", "").encode(),
        "x.bed.gz": gzip.compress(BED.encode()),
        "x.bed.bgz": bgzf(BED.encode(), block=50),
    }
    for name, data in stored.items():
        path = tmp_path / name
        path.write_bytes(data)
        found = list(load_regions([], [path], resolve).intervals())
        assert found == [("chr20", 5, 12), ("chr20", 90, 200), ("chrM", 0, 3)]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("chr1\t20\t10", DataError, "line 2: start 20 is greater than end 10"),
        ("chr1\t-1\t10", DataError, "line 2: start -1 is negative"),
        ("chr1\t1.5\t10", DataError, "line 2: '1.5' is not a whole number"),
        ("chr1\t1\t1e6", DataError, "line 2: '1e6' is not a whole number"),
        ("chr1\t1\t", DataError, "line 2: '' is not a whole number"),
        ("chr1\t1", DataError, "line 2: 2 columns; BED has at least 3"),
        ("chr1:5-10", DataError, "line 2: 1 columns"),
        ("chr9\t1\t2", DataError, "line 2: contig 'chr9' is not in the reference, which has chr1"),
        ("chrom\tstart\tend", DataError, "line 2: 'start' is not a whole number"),
    ],
)
def test_damaged_bed(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "x.bed"
    path.write_text(f"chr1\t1\t2\n{line}\nchr1\t3\t4\n")
    with pytest.raises(error, match=message) as caught:
        load_regions([], [path], resolve, known=CONTIGS.contigs)
    assert str(caught.value).startswith(str(path))


def test_bed_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match=r"no file .*gone.bed; a BED file is needed"):
        load_regions([], [tmp_path / "gone.bed"], resolve)
    path = tmp_path / "x.bed"
    path.write_text("# nothing\n")
    with pytest.raises(NoInput, match="holds no interval"):
        load_regions([], [path], resolve)
    path.write_bytes(bgzf(BED.encode())[:-5])
    with pytest.raises(DataError, match="is truncated"):
        load_regions([], [path], resolve)
