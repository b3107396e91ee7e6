"""Tables of peak files, and peak files: the fast reader against the strict one."""

import gzip
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.peak_files import write_table
from support.vcf_files import bgzf

from raygenome.datasets import spans as spans_module
from raygenome.datasets.peaks import Peaks, category_of, read_table, temporary_room
from raygenome.datasets.spans import Find, Spans, read_spans, union
from raygenome.datasets.splits import Excluded
from raygenome.errors import DataError, NoInput, StorageError
from raygenome.genome.intervals import read_bed
from raygenome.progress.bars import NoProgress

CONTIGS = {"chr1": 10_000, "chr2": 5_000}


def anything(name: str, where: str) -> str:
    return name.upper()


def slowly(path: Path, find: Find) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for contig, start, end in read_bed(path, find):
        found.setdefault(contig, []).append((start, end))
    return found


def result(read: Callable[[], object]) -> object:
    """Return what is read, or the message with which that is refused."""
    try:
        return read()
    except (DataError, NoInput) as error:
        return f"{type(error)}: {error}"


def listed(found: dict[str, Spans]) -> dict[str, list[tuple[int, int]]]:
    return {
        contig: list(zip(starts.tolist(), ends.tolist(), strict=True))
        for contig, (starts, ends) in found.items()
    }


#: Lines that are not as plain as most, or wrong.
STRANGE = [
    *["", "# x", "#c\t1\t2", "track\t5\t6", "chr1 5 6", "chr1\t1\t2\tx\ty", "chrom\tStart\tEnd"],
    *["chr1\t 5\t6", "chr1\t0x5\t6", "chr1\t+5\t6", "chr1\t7\t6", "chr1\t-1\t6", "chr1\t1"],
    *["chr1\t5\t" + "9" * 19, "chr1\t5\t" + "9" * 18, '"chr1\t5\t6', "\tx\t", "chr1\t1\t2\r"],
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
def test_reads_what_the_strict_reader_reads(tmp_path: Path, odd: bool) -> None:
    rng = random.Random(3)
    refused = 0
    for number in range(400):
        path = tmp_path / f"{number}.bed"
        path.write_text(random_bed(rng, odd=odd), encoding="utf-8", newline="")
        expected = result(lambda path=path: slowly(path, anything))
        assert result(lambda path=path: listed(read_spans(path, anything))) == expected
        refused += isinstance(expected, str)
    assert (refused > 50) == odd


def test_plain_files_take_the_fast_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(*args: object) -> None:
        raise AssertionError("a plain file went to the strict reader")

    monkeypatch.setattr(spans_module, "read_bed", strict)
    text = b"chr2\t5\t9\tp\nchr1\t3\t4\tq\nchr2\t0\t1\tr\n"
    for name, data in (("a", text), ("b.gz", gzip.compress(text)), ("c.gz", bgzf(text))):
        path = tmp_path / name
        path.write_bytes(data)
        found = listed(read_spans(path, anything))
        assert found == {"CHR2": [(5, 9), (0, 1)], "CHR1": [(3, 4)]}


def test_a_file_of_many_blocks(tmp_path: Path) -> None:
    rng = random.Random(8)
    path = tmp_path / "a.bed"
    with path.open("w") as file:
        for row in range(40_000):
            start = rng.randrange(10**8)
            file.write(f"chr{rng.randrange(row // 2_000 + 1)}\t{start}\t{start + 9}\t{'x' * 30}\n")
    assert path.stat().st_size > 2 << 20
    assert listed(read_spans(path, anything)) == slowly(path, anything)


def test_union_of_spans() -> None:
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


def test_categories() -> None:
    assays = {
        **{"DNase-seq": "DNase", "FAIRE-seq": "FAIRE", "ATAC-seq": "ATAC", "CTCF": "TF", "": ""},
        **{"H3K27ac": "histone", "H4K20me1": "histone", "H2AZ": "histone", "HNF4A": "TF"},
    }
    assert {assay: category_of(assay) for assay in assays} == assays


def test_reads_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.bed").write_text("chr1\t1\t2\n")
    table = tmp_path / "t.tsv"
    table.write_text(
        "\ufeffassay\tpath\tx\ttarget\ttreatment\tcategory\r\n"
        "H3K9ac\ta.bed\t1\tone\tnone\t\r\n"
        "\r\n"
        f"CTCF\t{tmp_path}/a.bed\t2\ttwo\tEtOH\tother\r\n"
        "CTCF\ta.bed\t2\tthree\r\n",
        encoding="utf-8",
    )
    found = read_table(table)
    assert [tuple(target) for target in found.targets] == [
        (0, "one", "", "H3K9ac", "none", "histone"),
        (1, "two", "", "CTCF", "EtOH", "other"),
        (2, "three", "", "CTCF", "", "TF"),
    ]
    assert found.files == [tmp_path / "a.bed"] * 3


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("", DataError, "(none)"),
        ("target\tfile\nx\ta.bed\n", DataError, "target, file"),
        ("target\tpath\tpath\nx\ta.bed\ta.bed\n", DataError, "each once"),
        ("target\tpath\n", DataError, "names no peak file"),
        ("target\tpath\nx\t\n", DataError, "line 2: no path"),
        ("target\tpath\nx\tb.bed\n", NoInput, "line 2: there is no file"),
        ("target\tpath\nx\ta.bed\ty\n", DataError, "line 2: 3 fields under 2 columns"),
        ("target\tpath\nx\ta.bed\nX\ta.bed\n", DataError, "differ in more than case"),
        ("target\tpath\n\ta.bed\n", DataError, "cannot be called ''"),
        ("target\tpath\npos\ta.bed\n", DataError, "cannot be called 'pos'"),
    ],
)
def test_refuses_a_table(tmp_path: Path, text: str, kind: type[Exception], says: str) -> None:
    (tmp_path / "a.bed").write_text("chr1\t1\t2\n")
    table = tmp_path / "t.tsv"
    table.write_text(text)
    with pytest.raises(kind) as raised:
        read_table(table)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_table_and_one_of_bytes(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="cannot read the table"):
        read_table(tmp_path / "none.tsv")
    (tmp_path / "t.tsv").write_bytes(b"target\tpath\n\xff\tx\n")
    with pytest.raises(DataError, match="not a table of peak files"):
        read_table(tmp_path / "t.tsv")


def test_peaks_by_contig(tmp_path: Path) -> None:
    sets = {
        "a": [("2", 30, 40), ("chr1", 5, 9), ("chr2", 10, 5_020)],
        "b": [("chrM", 1, 2), ("chr1", 99, 101), ("chr1", 100, 200)],
        "c": [("MT", 1, 2), ("chr2", 1, 2)],
    }
    excluded = Excluded(["chr1:101-200,chrM", "chr2:1-2"], CONTIGS)
    with Peaks.read(read_table(write_table(tmp_path, sets)).files, CONTIGS, excluded) as peaks:
        found = {
            contig: [(t, s.tolist(), e.tolist()) for t, s, e in peaks.on(contig)]
            for contig in CONTIGS
        }
        assert [peaks.has(contig) for contig in ("chr1", "chr2", "chrM")] == [True, True, False]
        assert (peaks.count, peaks.excluded) == (4, 4)
    assert found == {
        "chr1": [(0, [5], [9]), (1, [99], [101])],
        "chr2": [(0, [30, 10], [40, 5_020])],
    }
    excluded.check_met()


def test_a_contig_that_the_reference_lacks(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, {"a": [("chr1", 1, 2), ("chr7", 1, 2)]}))
    with pytest.raises(DataError) as raised:
        Peaks.read(table.files, CONTIGS, Excluded([], CONTIGS))
    assert str(raised.value) == (
        f"{table.files[0]}, line 2: contig 'chr7' is not in the reference, which has chr1, chr2; "
        "leave it out with --exclude chr7"
    )
    # Lines before and after do not hide the one that counts from the strict reader.
    table.files[0].write_text("#x\n\nchr1\t1\t2\nchr7\t1\t2\n")
    with pytest.raises(DataError, match="line 4: contig 'chr7'"):
        Peaks.read(table.files, CONTIGS, Excluded([], CONTIGS))


def test_peaks_of_another_assembly(tmp_path: Path) -> None:
    table = read_table(
        write_table(tmp_path, {"a": [("chr1", 9_999, 10_500), ("chr2", 5_000, 5_001)]})
    )
    with pytest.raises(DataError, match=r"chr2 5000 5001 starts beyond .*5,000 bases"):
        Peaks.read(table.files, CONTIGS, Excluded([], CONTIGS))


def test_no_room_for_temporary_files() -> None:
    with pytest.raises(StorageError, match="No space left"), temporary_room():
        raise OSError(28, "No space left on device")
    with pytest.raises(NoInput, match="mine"), temporary_room():
        raise NoInput("mine")


def test_a_refused_file_ends_the_progress(tmp_path: Path) -> None:
    calls: list[str] = []

    class Told(NoProgress):
        def begin(self, what: str, total: int, done: int = 0, *, unit: str = "") -> None:
            calls.append("begin")

        def end(self) -> None:
            calls.append("end")

    (tmp_path / "a.bed").write_text("chr1\tx\t5\n")
    contigs = {"chr1": 100}
    with pytest.raises(DataError):
        Peaks.read([tmp_path / "a.bed"], contigs, Excluded([], contigs), Told())
    assert calls == ["begin", "end"]


def test_a_refused_file_leaves_no_temporary_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    plain = tempfile.TemporaryFile
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda **how: opened.append(plain(**how)) or opened[-1]
    )
    table = read_table(write_table(tmp_path, {"a": [("chr7", 1, 2)]}))
    with pytest.raises(DataError):
        Peaks.read(table.files, CONTIGS, Excluded([], CONTIGS))
    assert [file.closed for file in opened] == [True]
