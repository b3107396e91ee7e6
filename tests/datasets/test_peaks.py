"""Tables of peak files, and the peaks of a table by contig."""

import tempfile
from pathlib import Path

import pytest
from support.peak_files import write_table

from raygenome.datasets.peaks import Peaks, category_of, read_table, temporary_room
from raygenome.datasets.splits import Excluded
from raygenome.errors import DataError, NoInput, StorageError
from raygenome.progress.bars import NoProgress

CONTIGS = {"chr1": 10_000, "chr2": 5_000}


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
