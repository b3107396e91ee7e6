"""Region strings; BED files compared with a slow reader; unions and overlaps with a brute force."""

import gzip
import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vcf_files import bgzf

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.genome.contigs import ContigMap
from raygenome.genome.intervals import (
    OPEN_END,
    Interval,
    Regions,
    load_regions,
    parse_region,
    read_bed,
    union,
)

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


def test_an_interval_is_written_as_the_region_that_it_is() -> None:
    intervals = {
        "chr20": Interval("chr20", 0, OPEN_END),
        "chr20:1,000-": Interval("chr20", 999, OPEN_END),
        "chr20:1-2,000": Interval("chr20", 0, 2000),
        "HLA-A*01:01:5-5": Interval("HLA-A*01:01", 4, 5),
    }
    for text, interval in intervals.items():
        assert str(interval) == text
        assert parse_region(text, resolve) == interval


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UsageError, "'' is not a region; write it as chr20"),
        ("chr20:", UsageError, "is not a region"),
        ("chr20:a-b", UsageError, "is not a region"),
        ("chr20:5-3-1", UsageError, "is not a region"),
        ("chr20:-5", UsageError, "is not a region"),
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
    with pytest.raises(NoInput, match=r"no file .*gone.bed; give a BED file"):
        load_regions([], [tmp_path / "gone.bed"], resolve)
    path = tmp_path / "x.bed"
    path.write_text("# nothing\n")
    with pytest.raises(NoInput, match="holds no interval"):
        load_regions([], [path], resolve)
    path.write_bytes(bgzf(BED.encode())[:-5])
    with pytest.raises(DataError, match="is truncated"):
        load_regions([], [path], resolve)


def slow_bed(text: str) -> dict[str, list[tuple[int, int]]] | int:
    """Return the intervals of BED text by upper-cased contig, or the first line that is not BED."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = line.rstrip("\r")
        fields = line.split("\t") if "\t" in line else line.split()
        words = line.split()
        if not words or words[0].startswith("#") or fields[0].strip() in ("track", "browser"):
            continue
        if not fields[0].strip() and words[0] in ("track", "browser"):
            return number
        if not found and len(fields) > 2 and fields[1] in ("start", "Start"):
            continue
        if len(fields) < 3 or not all(re.fullmatch("-?[0-9]{1,18}", n) for n in fields[1:3]):
            return number
        start, end = int(fields[1]), int(fields[2])
        if not 0 <= start <= end:
            return number
        found.setdefault(fields[0].upper(), []).append((start, end))
    spans = {name: [(s, e) for s, e in rows if s < e] for name, rows in found.items()}
    return {name: rows for name, rows in spans.items() if rows}


#: Lines that are unusual, or wrong.
STRANGE = [
    *["", "# x", "#c\t1\t2", "track\t5\t6", "chr1 5 6", "chr1\t1\t2\tx\ty", "chrom\tStart\tEnd"],
    *["chr1\t 5\t6", "chr1\t0x5\t6", "chr1\t+5\t6", "chr1\t7\t6", "chr1\t-1\t6", "chr1\t1"],
    *["chr1\t5\t" + "9" * 19, "chr1\t5\t" + "9" * 18, '"chr1\t5\t6', "\tx\t", "chr1\t1\t2\r"],
    *["chr1\t\u0663\t6", "chr1\t5\t\u00b2", "chr1\t-0\t6", "\u00e9\t1\t2", "chr1\t9\t9"],
]


def random_bed(rng: random.Random, *, odd: bool) -> str:
    columns = rng.choice([3, 6, 10])
    end = rng.choice(["\n", "\n", "\r\n"])
    lines = []
    for _ in range(rng.randrange(1, 30)):
        start = rng.randrange(10**4)
        fields = [rng.choice(["chr1", "chr2", "chrX"]), str(start), str(start + rng.randrange(99))]
        lines.append("\t".join(fields + ['"x y" z'] * (columns - 3)))
    for _ in range(rng.randrange(1, 3) if odd else 0):
        lines.insert(rng.choice([0, rng.randrange(len(lines) + 1)]), rng.choice(STRANGE))
    return rng.choice(["", "", "\ufeff"] if odd else [""]) + end.join(lines) + rng.choice(["", end])


@pytest.mark.parametrize("odd", [False, True])
def test_bed_is_read_as_the_slow_reader_reads_it(tmp_path: Path, odd: bool) -> None:
    rng = random.Random(3)
    refused = 0
    path = tmp_path / "a.bed"
    for _ in range(600):
        text = random_bed(rng, odd=odd)
        path.write_text(text, encoding="utf-8", newline="")
        expected = slow_bed(text)
        if isinstance(expected, int):
            refused += 1
            with pytest.raises(DataError, match=f"a.bed, line {expected}: "):
                read_bed(path, lambda name, _: name.upper())
        elif not expected:
            with pytest.raises(NoInput, match="holds no interval"):
                read_bed(path, lambda name, _: name.upper())
        else:
            found = read_bed(path, lambda name, _: name.upper())
            assert {
                contig: list(zip(starts.tolist(), ends.tolist(), strict=True))
                for contig, (starts, ends) in found.items()
            } == expected
            assert list(found) == list(expected)
            assert all(values.dtype == np.int64 for spans in found.values() for values in spans)
    assert (refused > 75) == odd


def test_names_of_one_contig_are_asked_for_once_and_put_together(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("1\t5\t6\nchr1\t3\t4\n1\t7\t8\nchr1\t1\t2\n")
    asked = []

    def find(name: str, where: str) -> str:
        asked.append((name, where))
        return resolve(name) or ""

    ((contig, (starts, ends)),) = read_bed(path, find).items()
    assert (contig, starts.tolist(), ends.tolist()) == ("chr1", [5, 3, 7, 1], [6, 4, 8, 2])
    assert asked == [("1", f"{path}, line 1"), ("chr1", f"{path}, line 2")]


def test_union() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        starts = rng.integers(0, 60, int(rng.integers(0, 12)))
        ends = starts + rng.integers(1, 9, len(starts))
        covered = np.zeros(80, dtype=bool)
        for start, end in zip(starts, ends, strict=True):
            covered[start:end] = True
        steps = np.diff(np.concatenate([[0], covered.astype(int), [0]]))
        found = union(starts, ends)
        assert found[0].tolist() == np.flatnonzero(steps == 1).tolist()
        assert found[1].tolist() == np.flatnonzero(steps == -1).tolist()
        regions = Regions.of_spans({"c": (starts, ends)})
        assert [values.tolist() for values in regions.on("c")] == [v.tolist() for v in found]
