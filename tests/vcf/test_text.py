"""VCF text, compared with a slow reader, on very irregular text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.vcf_files import HEADER, Site, slow_sites

from raygenome.errors import DataError, NoInput
from raygenome.vcf import text as vcftext
from raygenome.vcf.text import TextReader

HEAD = b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\n"
NAMES = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def read(text: bytes, piece: int = 1 << 20) -> TextReader:
    return TextReader((text[at : at + piece] for at in range(0, len(text), piece)), "x.vcf")


def sites(reader: TextReader) -> list[Site]:
    rows: list[Site] = []
    for batch in reader:
        batch.validate(full=True)
        rows.extend(tuple(row.values()) for row in batch.to_pylist())
    return rows


def field(letters: bytes, longest: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(letters), max_size=longest).map(bytes)


any_field = st.one_of(
    field(bytes(set(range(1, 256)) - set(b"\t\n")), 9),
    field(b"ACGTN.*<>,", 90),
    st.sampled_from([b"", b".", b"NA", b"NaN", b"null", b'"', b'"a', b"\\t", b"'", b"\r", b"\xff"]),
)
position = st.one_of(
    st.integers(-(10**20), 10**20).map(lambda n: str(n).encode()),
    st.integers(1, 10**9).map(lambda n: str(n).encode()),
    st.sampled_from([b"", b"-", b"+5", b" 5", b"5 ", b"0x1F", b"1e5", b"1.0", b"007", b"-3"]),
    any_field,
)


@st.composite
def record(draw: st.DrawFn, columns: int) -> bytes:
    """Draw a record of `columns` columns, or sometimes of others."""
    columns = draw(st.sampled_from([columns] * 9 + [5, 8]))
    fields = [draw(any_field.filter(lambda name: not name.startswith(b"#"))), draw(position)]
    return b"\t".join([*fields, *(draw(any_field) for _ in range(columns - 2))])


@st.composite
def text_of(draw: st.DrawFn) -> bytes:
    columns = draw(st.integers(5, 11))
    names = [*NAMES.rstrip().split(b"\t"), b"FORMAT", b"s1", b"s2"][:columns]
    rows = draw(st.lists(st.one_of(record(columns), record(columns), st.just(b"")), max_size=30))
    newline = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    end = newline if draw(st.booleans()) or columns != 5 else b""
    return b"##fileformat=VCFv4.3\n" + b"\t".join(names) + b"\n" + newline.join(rows) + end


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text_of(), st.integers(1, 400))
def test_reads_what_the_slow_reader_reads(text: bytes, piece: int) -> None:
    expected, blank = slow_sites(text)
    for cut in (piece, len(text)):
        reader = read(text, cut)
        assert sites(reader) == expected
        assert reader.blank_lines == blank


@pytest.mark.parametrize("columns", [5, 6, 7, 8, 20])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\n\n"])
def test_regular_lines_are_read_by_arrow(
    columns: int, newline: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*NAMES.rstrip().split(b"\t"), b"FORMAT", *(b"s%d" % i for i in range(20))][:columns]
    row = b"\t".join([*ROW.rstrip().split(b"\t"), *[b"0/1"] * 20][:columns])
    odd = row.replace(b".", b'"NA').replace(b"5", b"-07", 1)
    text = (
        b"##fileformat=VCFv4.3\n" + b"\t".join(names) + b"\n" + newline.join([row, odd, row, b""])
    )
    monkeypatch.setattr(TextReader, "_parse_lines", lambda *_: pytest.fail("read line by line"))
    reader = read(text)
    assert (sites(reader), reader.blank_lines) == slow_sites(text)


@pytest.mark.parametrize("columns", [5, 6, 7, 8, 20])
def test_number_of_columns(columns: int) -> None:
    rng = np.random.default_rng(columns)
    rows = []
    for _ in range(2_000):
        allele = "".join(rng.choice(list("ACGT"), rng.integers(1, 40)))
        fields = ["chr1", str(rng.integers(1, 10**9)), "rs1", "A", allele, "7", "PASS", "x" * 99]
        rows.append("\t".join((fields + ["0/1"] * 20)[:columns]))
    text = HEAD + "\n".join(rows).encode()
    assert sites(read(text, 5_000)) == slow_sites(text)[0]


def test_lines_around_the_size_of_arrows_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also lines that lie across its blocks, or are longer than one."""
    monkeypatch.setattr(vcftext, "_CSV_BLOCK", 1 << 10)
    rng = np.random.default_rng(9)
    for longest in (300, 2_000):
        rows = [ROW.replace(b"X", b"x" * int(rng.integers(1, longest))) for _ in range(200)]
        text = b"##fileformat=VCFv4.2\n" + NAMES + b"".join(rows)
        assert sites(read(text)) == slow_sites(text)[0]


def test_many_samples() -> None:
    columns = b"\t".join(b"s%d" % sample for sample in range(1_200))
    row = ROW.rstrip() + b"\tGT" + b"\t0/1" * 1_200 + b"\n"
    names = NAMES.rstrip() + b"\tFORMAT\t" + columns + b"\n"
    text = b"##fileformat=VCFv4.2\n" + names + row * 5
    assert sites(read(text)) == slow_sites(text)[0]


def test_header() -> None:
    reader = read(
        b"\xef\xbb\xbf##fileformat=VCFv4.2\r\n"
        b"##contig=<ID=chr1,length=248956422,assembly=GRCh38>\r\n"
        b"##contig=<assembly=b37, length=63025520, ID=20>\r\n"
        b'##contig=<ID="HLA-A*01:01">\r\n'
        b"##contig=<ID=odd,length=many>\r\n"
        b"##contig=nothing\r\n##contig=<length=5>\r\n##contig=<ID=chr1,length=1>\r\n"
        b"##INFO=<ID=\xff\xfe broken\r\n##\r\n\r\n"
        b"goes on here\r\n# a comment\r\n"
        b"##" + b"x" * 100_000 + b"\r\n" + NAMES.replace(b"\n", b"\tFORMAT\ts 1\r\n"),
        1_000,
    )
    header = reader.header
    assert header.version == "VCFv4.2"
    assert header.contigs == {
        "chr1": 248956422,
        "20": 63025520,
        "HLA-A*01:01": None,
        "odd": None,
    }
    assert header.n_columns == 10
    assert (header.lines, header.blank_lines) == (15, 1)
    assert sites(reader) == []
    assert reader.blank_lines == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"chr1\t5\t.\tA\tC\n", "is not a VCF: its first line is 'chr1"),
        (b" ##fileformat=VCFv4.2\n" + NAMES, "is not a VCF"),
        (b"##fileformat=VCFv4.2\n##x\n", "no '#CHROM' line.* 2 lines.*may be truncated"),
        (b"##fileformat=VCFv4.2\nchr1\t5\t.\tA\tC\n", "line 2: found 'chr1"),
        (b"##fileformat=VCFv4.2\n#CHROM POS ID REF ALT\n", "line 2.*spaces for tabs"),
        (b"##fileformat=VCFv4.2\n#chrom\tpos\tid\tref\talt\n", "line 2: the column names are"),
        (b"##fileformat=VCFv4.2\n#CHROM\tPOS\tREF\tALT\tID\n", "line 2: the column names are"),
        (b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\n", "line 2: the column names are"),
        (HEAD.replace(b"ALT", b"ALT\tFILTER\tQUAL"), "line 2: the column names are"),
        (b"##fileformat=VCFv4.2\n#\tPOS\tID\n" + NAMES, "line 2: the column names are"),
        (b"\x01\x02\n", r"first line is '\\x01\\x02'"),
    ],
)
def test_damaged_headers(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_nothing_at_all() -> None:
    with pytest.raises(NoInput, match="holds nothing"):
        read(b"")


ROW = b"chr1\t5\t.\tA\tC\t.\tPASS\tX\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROW * 3 + b"chr1\t6\t.\tA\n" + ROW, "line 6: 4 columns separated by tabs, and at least 5"),
        (
            ROW + b"\n\r\n" + b"chr1 6 . A C . PASS X\n",
            "line 6: 1 columns.*spaces: turn them into tabs",
        ),
        (ROW + NAMES + ROW, "line 4: a second header or a comment, '#CHROM.*bcftools concat"),
        (ROW + b"##fileformat=VCFv4.2\n", "line 4: a second header"),
        (ROW + b"#chr1\t6\t.\tA\tC\n", "line 4: a second header or a comment"),
        (ROW + b"chr1\t6\t.\tA\x00\tC\t.\t.\tX\n", "line 4: holds NUL bytes"),
        (b"\0" * 5_000 + b"\n" + ROW, "line 3: holds NUL bytes"),
        (
            ROW + b"chr1\t6\t.\tA\tC\t.\tPA",
            "truncated in its last line: line 4 has 7 of 8 columns",
        ),
        (ROW + b"chr1\t6\t.\tA", "truncated in its last line: line 4 has 4 of 8 columns"),
        (ROW + b"chr", "line 4: 1 columns"),
    ],
)
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_lines_that_are_no_records(rows: bytes, message: str, piece: int) -> None:
    text = b"##fileformat=VCFv4.2\n" + NAMES + rows
    with pytest.raises(DataError, match=message) as caught:
        sites(read(text, piece))
    assert "\n" not in str(caught.value)


def test_nul_and_latin_1_beyond_the_site_columns() -> None:
    text = b"##fileformat=VCFv4.2\n" + NAMES + ROW.replace(b"X", b"\xe9\x00") * 3
    assert sites(read(text)) == slow_sites(text)[0]


def test_a_last_line_without_newline_is_whole_if_its_columns_are() -> None:
    text = b"##fileformat=VCFv4.2\n" + NAMES + ROW + ROW[:-1]
    assert len(sites(read(text))) == 2


def test_a_line_of_ten_megabytes() -> None:
    long = b"chr1\t6\t.\t" + b"A" * 1_000_000 + b"\tC\t.\tPASS\t" + b"x" * 10_000_000 + b"\n"
    text = HEADER.encode() + ROW + long + ROW
    found = sites(read(text, 1 << 16))
    assert [len(ref) for _, _, _, ref, _, _ in found] == [1, 1_000_000, 1]


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcftext, "LONGEST_LINE", 1 << 20)
    with pytest.raises(DataError, match="line 4: longer than 1 MiB"):
        sites(read(HEAD + ROW + b"x" * (2 << 20), 1 << 16))
    with pytest.raises(DataError, match="line 2: longer than 1 MiB"):
        read(HEAD[:21] + b"x" * (2 << 20), 1 << 16)
