import gzip
import logging
import pickle
from pathlib import Path

import numpy as np
import pysam
import pytest

from raygenome.errors import DataError, NoInput
from raygenome.genome import fasta
from raygenome.genome.fasta import Reference
from raygenome.storage.bgzf import BgzfFile

LETTERS = np.frombuffer(b"ACGTacgtNnRYKMswu-", dtype=np.uint8)
CODES = {letter: code for code, pair in enumerate(("Aa", "Cc", "Gg", "Tt")) for letter in pair}


def draw(rng: np.random.Generator, length: int) -> str:
    weights = np.array([8] * 8 + [1] * (len(LETTERS) - 8), dtype=float)
    return rng.choice(LETTERS, length, p=weights / weights.sum()).tobytes().decode()


def write(
    path: Path, contigs: dict[str, str], *, width: int = 60, newline: str = "\n", last: bool = True
):
    lines = []
    for name, sequence in contigs.items():
        lines.append(f">{name} a description > with more")
        lines += [sequence[at : at + width] for at in range(0, len(sequence), width)]
    text = newline.join(lines) + (newline if last else "")
    path.write_bytes(text.encode())
    return path


def bgzip(plain: Path) -> Path:
    target = plain.with_name(plain.name + ".gz")
    pysam.tabix_compress(str(plain), str(target), force=True)
    return target


def faidx(path: Path) -> Path:
    pysam.faidx(str(path))
    return path


def slow_fetch(sequence: str, start: int, end: int) -> list[int]:
    return [
        CODES.get(sequence[at], 4) if 0 <= at < len(sequence) else 4 for at in range(start, end)
    ]


@pytest.fixture
def contigs() -> dict[str, str]:
    rng = np.random.default_rng(20260107)
    lengths = {"chr1": 1234, "2": 60, "HLA-A*01:01": 61, "chrM": 1, "GL000191.1": 420}
    return {name: draw(rng, length) for name, length in lengths.items()}


@pytest.fixture(params=["plain", "bgzip", "plain+fai", "bgzip+fai"])
def genome(request, tmp_path, contigs) -> Path:
    path = write(tmp_path / "genome.fa", contigs)
    if request.param.startswith("bgzip"):
        path = bgzip(path)
    return faidx(path) if request.param.endswith("fai") else path


def test_fetch_is_right_at_both_ends_of_every_contig(genome, contigs, monkeypatch):
    monkeypatch.setattr(fasta, "BLOCK", 16)
    reference = Reference.open(genome)
    assert reference.contigs == {name: len(sequence) for name, sequence in contigs.items()}
    assert list(reference.contigs) == list(contigs)
    for name, sequence in contigs.items():
        edges = sorted({*range(-5, 20), *range(len(sequence) - 20, len(sequence) + 6)})
        for start in edges:
            for end in (end for end in edges if start <= end <= start + 90):
                codes = reference.fetch(name, start, end)
                assert codes.dtype == np.uint8
                assert codes.tolist() == slow_fetch(sequence, start, end), (name, start, end)


def test_fetch_is_right_anywhere_cached_and_direct(genome, contigs, monkeypatch):
    monkeypatch.setattr(fasta, "BLOCK", 32)
    rng = np.random.default_rng(5)
    reference = Reference.open(genome)
    for _ in range(1500):
        name = rng.choice(list(contigs))
        start = int(rng.integers(-200, len(contigs[name]) + 200))
        end = start + int(rng.integers(0, 400))
        codes = reference.fetch(name, start, end)
        assert codes.tolist() == slow_fetch(contigs[name], start, end), (name, start, end)
        codes[:] = 9  # the caller's copy: changes must not reach the cache
    assert len(reference._blocks) <= fasta.KEPT_BLOCKS


def test_fetch_refuses_what_is_no_span(genome):
    reference = Reference.open(genome)
    assert reference.fetch("chr1", 7, 7).shape == (0,)
    assert reference.fetch("chr1", -50, -20).tolist() == [4] * 30
    with pytest.raises(ValueError, match="ends before it starts"):
        reference.fetch("chr1", 7, 6)
    with pytest.raises(KeyError):
        reference.fetch("chr9", 0, 1)


@pytest.mark.slow
def test_long_contig_over_many_bgzf_blocks(tmp_path):
    rng = np.random.default_rng(6)
    sequence = draw(rng, 3_000_000)
    path = faidx(bgzip(write(tmp_path / "long.fa", {"c": sequence}, width=70)))
    reference = Reference.open(path)
    whole = fasta.encode(sequence)
    assert (reference.fetch("c", 0, len(sequence)) == whole).all()
    for start in rng.integers(0, len(sequence) - 1000, 500).tolist():
        assert (reference.fetch("c", start, start + 1000) == whole[start : start + 1000]).all()


def test_pickle_reopens_and_digest_is_of_the_bytes(genome, contigs):
    import hashlib

    reference = Reference.open(genome)
    again = pickle.loads(pickle.dumps(reference))
    assert again.contigs == reference.contigs
    assert (again.fetch("chr1", -3, 90) == reference.fetch("chr1", -3, 90)).all()
    assert again.digest() == hashlib.sha256(genome.read_bytes()).hexdigest()


def test_index_is_kept_in_the_cache_and_used_again(tmp_path, contigs, home, monkeypatch):
    plain = write(tmp_path / "genome.fa", contigs)
    zipped = bgzip(plain)
    before = sorted(tmp_path.iterdir())
    for path in (plain, zipped):
        first = Reference.open(path)
        monkeypatch.setattr(fasta, "_build_fai", lambda *_, **__: pytest.fail("indexed again"))
        assert Reference.open(path).contigs == first.contigs
        monkeypatch.undo()
        monkeypatch.setenv("RAYGENOME_HOME", str(home))
    assert sorted(set(tmp_path.iterdir()) - {home}) == before
    kept = sorted(path.suffix for path in (home / "cache" / "fasta").iterdir())
    assert kept == [".fai", ".fai", ".gzi"]


def test_a_cached_index_of_another_state_is_rebuilt(tmp_path, contigs, home):
    path = write(tmp_path / "genome.fa", contigs)
    Reference.open(path)
    (index,) = (home / "cache" / "fasta").glob("*.fai")
    index.write_text("chr1\t1200\t35\t60\t61\n")
    assert Reference.open(path).contigs["chr1"] == 1234
    index.write_text("damaged")
    assert Reference.open(path).contigs["chr1"] == 1234


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_line_ends(tmp_path, contigs, newline, last, indexed):
    path = write(tmp_path / "g.fa", contigs, newline=newline, last=last, width=37)
    reference = Reference.open(faidx(path) if indexed else path)
    for name, sequence in contigs.items():
        assert reference.fetch(name, 0, len(sequence)).tolist() == slow_fetch(
            sequence, 0, len(sequence)
        )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("indexed", [False, True])
def test_empty_contigs_and_blank_ends_are_no_fault(tmp_path, compressed, indexed):
    path = tmp_path / "g.fa"
    path.write_text(">none\n>a x\nACGTA\nCC\n>void\n>b\nGGGGG\nTT\n\n\n")
    path = bgzip(path) if compressed else path
    reference = Reference.open(faidx(path) if indexed else path)
    assert reference.fetch("b", 4, 8).tolist() == [2, 3, 3, 4]
    assert reference.fetch("a", 0, 7).tolist() == [0, 1, 2, 3, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", r"not a FASTA file: it starts with '<!DOCTYPE html><html"),
        (b"ACGT\nACGT\n", "not with a '>' header"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not with a '>' header"),
        (gzip.compress(b">a\nACGT\n", mtime=0), r"gzip, which has no random access.*\| bgzip"),
        (
            b">a\nACGT\nAC\nACGT\n",
            r"cannot be indexed: the lines of contig 'a' differ in length \(line 4\)",
        ),
        (
            b">a\nACGT\n\nACGT\n",
            r"cannot be indexed: the lines of contig 'a' differ in length \(line 4\)",
        ),
        (b">a\nACGT\n>b\nAC\n>a\nGG\n", "(?i)'a' is there twice|duplicate key.*a"),
        (b">\nACGT\n", "the contig at byte 2 has no name"),
    ],
)
def test_what_is_no_fasta_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "genome.fa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Reference.open(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b">a\nACGT\nAC\nACGT\n",
            r"cannot be indexed: the lines of contig 'a' differ in length \(line 4\)",
        ),
        (b">a\nACGT\n>b\nAC\n>a\nGG\n", "'a' is there twice"),
    ],
)
def test_bad_sequence_in_bgzip(tmp_path, content, message):
    path = tmp_path / "genome.fa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Reference.open(bgzip(path))


def test_plain_fasta_under_a_name_of_gzip(tmp_path):
    path = tmp_path / "genome.fa.gz"
    path.write_text(">a\nACGT\n")
    assert Reference.open(path).fetch("a", 0, 4).tolist() == [0, 1, 2, 3]


def test_duplicate_contig_with_an_index_of_samtools(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_text(">a\nACGT\n>b\nAC\n>a\nGG\n")
    with pytest.raises(DataError, match="'a' is there twice"):
        Reference.open(faidx(path))


def test_missing(tmp_path):
    with pytest.raises(NoInput, match="no such FASTA"):
        Reference.open(tmp_path / "no.fa")
    with pytest.raises(NoInput, match="cannot be read"):
        Reference.open(tmp_path)


def edits(contigs: dict[str, str]) -> dict[str, tuple[dict[str, str], int]]:
    """Return, by name, ways in which a FASTA may change under its index: (contigs, line width)."""
    first, second, *_ = contigs
    sequence = contigs[first]
    swapped = {second: contigs[second], **{k: v for k, v in contigs.items() if k != second}}
    return {
        "shorter": ({**contigs, first: sequence[:-1]}, 60),
        "a line shorter": ({**contigs, first: sequence[:-60]}, 60),
        "last contig shorter": ({**contigs, "GL000191.1": contigs["GL000191.1"][:-1]}, 60),
        "last contig longer": ({**contigs, "GL000191.1": contigs["GL000191.1"] + "A"}, 60),
        "width": (contigs, 50),
        "width longer": (contigs, 61),
        "swapped": (swapped, 60),
        "renamed": ({("chr7" if k == first else k): v for k, v in contigs.items()}, 60),
        "inserted": ({**contigs, first: sequence[:500] + "T" + sequence[500:]}, 60),
        "one more contig": ({**contigs, "more": "ACGT"}, 60),
        "one contig in the middle": ({first: sequence, "more": "ACGT" * 60, **contigs}, 60),
        "one contig less": ({k: v for k, v in contigs.items() if k != "chrM"}, 60),
        "last contig gone": (dict(list(contigs.items())[:-1]), 60),
    }


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("edit", [*edits(dict.fromkeys(("chr1", "2", "chrM", "GL000191.1"), "A"))])
def test_a_stale_fai_is_refused(tmp_path, contigs, compressed, edit):
    make = (lambda path: bgzip(path)) if compressed else (lambda path: path)
    path = faidx(make(write(tmp_path / "genome.fa", contigs)))
    Reference.open(path)
    changed, width = edits(contigs)[edit]
    make(write(tmp_path / "genome.fa", changed, width=width))
    with pytest.raises(DataError, match=r"\.fai: does not fit genome.*delete it or run") as caught:
        Reference.open(path)
    assert "\n" not in str(caught.value)


def test_a_base_moved_between_lines_is_seen_where_lines_are_looked_at(tmp_path, contigs):
    path = faidx(write(tmp_path / "genome.fa", contigs))
    data = bytearray(path.read_bytes())
    at = data.index(b"\n", data.index(b"\n") + 1)
    data[at : at + 2] = data[at + 1 : at + 2] + b"\n"
    path.write_bytes(data)
    with pytest.raises(DataError, match="'chr1' has no line of 60 bases"):
        Reference.open(path)


def test_random_insertions_and_deletions_are_all_refused(tmp_path, contigs):
    path = faidx(write(tmp_path / "genome.fa", contigs))
    whole = path.read_bytes()
    rng = np.random.default_rng(8)
    for _ in range(300):
        at = int(rng.integers(0, len(whole)))
        length = int(rng.choice([1, 2, 60, 61, 122]))
        insert = bool(rng.integers(2)) or at + length > len(whole)
        piece = b"ACGTTGCAAG"[:1] * length
        path.write_bytes(whole[:at] + (piece + whole[at:] if insert else whole[at + length :]))
        try:
            changed = Reference.open(path)
        except DataError:
            continue
        # if a change is accepted, reads must be right: only a header's description may change
        for name, sequence in contigs.items():
            assert changed.fetch(name, 0, len(sequence)).tolist() == slow_fetch(
                sequence, 0, len(sequence)
            ), (at, length, insert)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated(tmp_path, contigs, keep):
    path = faidx(write(tmp_path / "genome.fa", contigs))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match="does not fit"):
        Reference.open(path)
    zipped = bgzip(write(tmp_path / "zipped.fa", contigs))
    whole = zipped.read_bytes()
    zipped.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match="truncated at byte"):
        Reference.open(zipped)


def test_bgzip_cut_at_a_block_boundary_is_refused(tmp_path):
    sequence = draw(np.random.default_rng(9), 300_000)
    path = faidx(bgzip(write(tmp_path / "g.fa", {"c": sequence})))
    whole = path.read_bytes()
    content = BgzfFile(path)
    content.close()
    for start in content.starts[1:-1, 0].tolist():
        path.write_bytes(whole[:start])
        with pytest.raises(DataError, match="no BGZF end-of-file block"):
            Reference.open(path)


def test_a_gzi_that_is_stale_or_missing_is_replaced(tmp_path, home, caplog):
    rng = np.random.default_rng(10)
    first = {"c": draw(rng, 400_000)}
    path = faidx(bgzip(write(tmp_path / "g.fa", first)))
    gzi = Path(f"{path}.gzi")
    content = BgzfFile(path)
    content.close()
    assert content.gzi() == gzi.read_bytes()
    # the same geometry, other bases that compress otherwise: the .fai still fits, the .gzi does not
    second = {"c": draw(rng, 200_000) + "A" * 200_000}
    bgzip(write(tmp_path / "g.fa", second))
    assert content.gzi() == gzi.read_bytes()
    with caplog.at_level(logging.WARNING):
        stale = Reference.open(path)
    assert "does not fit" in caplog.text
    assert stale.fetch("c", 0, 400_000).tolist() == slow_fetch(second["c"], 0, 400_000)
    gzi.unlink()
    assert (
        Reference.open(path).fetch("c", 199_000, 201_000) == stale.fetch("c", 199_000, 201_000)
    ).all()
    assert not gzi.exists()


def test_a_damaged_bgzf_block_is_refused_when_read(tmp_path):
    path = faidx(bgzip(write(tmp_path / "g.fa", {"c": draw(np.random.default_rng(11), 400_000)})))
    content = BgzfFile(path)
    content.close()
    # a block without sampled lines, so that only a fetch reads it
    data = bytearray(path.read_bytes())
    data[int(content.starts[3, 0]) + 5000] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read|is damaged|meanwhile"):
        Reference.open(path).fetch("c", 0, 400_000)


@pytest.mark.parametrize(
    "text", ["chr1\t10\n", "chr1\tx\t1\t2\t3\n", "c\t5\t3\t0\t1\n", "c\t5\t3\t5\t6\t7\n"]
)
def test_a_fai_that_is_none(tmp_path, contigs, text):
    path = write(tmp_path / "genome.fa", contigs)
    Path(f"{path}.fai").write_text(text)
    with pytest.raises(DataError, match=r"line 1 is not a valid \.fai line"):
        Reference.open(path)
    Path(f"{path}.fai").write_text("")
    with pytest.raises(DataError, match="it lists no contig"):
        Reference.open(path)


def test_real_genome(real_data):
    reference = Reference.open(real_data / "hg19" / "genome" / "hg19_mini.fa.gz")
    assert list(reference.contigs) == ["chr1", "chr17", "chr20", "chr21", "chr22"]
    codes = reference.fetch("chr22", 17_400_000, 17_401_000)
    assert set(codes.tolist()) <= {0, 1, 2, 3, 4}
