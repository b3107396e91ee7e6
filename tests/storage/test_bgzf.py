"""BGZF and gzip: complete files are read completely, damaged ones are refused."""

import gzip
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.vcf_files import bgzf, bgzf_block, block_starts

from raygenome.errors import DataError
from raygenome.storage.bgzf import END_OF_FILE, BgzfFile, is_bgzf, pieces
from raygenome.storage.input import RawInput


@pytest.fixture
def content() -> bytes:
    rng = np.random.default_rng(3)
    return rng.choice(np.frombuffer(b"ACGT\t\n0123456789", np.uint8), 200_000).tobytes()


def inflate(path: Path, threads: int = 2) -> bytes:
    with RawInput(str(path)) as raw:
        return b"".join(pieces(raw, threads=threads))


def inflate_stream(stored: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stored)))
    return inflate(Path("-"))


def put(folder: Path, stored: bytes) -> Path:
    path = folder / "x.vcf.gz"
    path.write_bytes(stored)
    return path


@pytest.mark.parametrize("block", [100, 4_000, 65_280])
def test_content_and_pieces_do_not_depend_on_threads(
    tmp_path: Path, content: bytes, block: int
) -> None:
    path = put(tmp_path, bgzf(content, block=block))
    cuts = []
    for threads in (1, 2, 5):
        with RawInput(str(path)) as raw:
            parts = list(pieces(raw, threads=threads))
        assert b"".join(parts) == content
        cuts.append([len(part) for part in parts])
    assert cuts[0] == cuts[1] == cuts[2]


def test_other_fields_in_the_block_header(tmp_path: Path, content: bytes) -> None:
    other = b"RG\x03\x00abc"
    blocks = [bgzf_block(content[:5_000], fields_before=other), bgzf_block(content[5_000:9_000])]
    assert is_bgzf(blocks[0])
    assert inflate(put(tmp_path, b"".join(blocks) + END_OF_FILE)) == content[:9_000]


def test_joined_files_are_one(tmp_path: Path, content: bytes) -> None:
    stored = bgzf(content[:70_000]) + bgzf(content[70_000:])
    assert inflate(put(tmp_path, stored)) == content


def test_every_truncation_is_refused_before_anything_is_read(
    tmp_path: Path, content: bytes
) -> None:
    stored = bgzf(content, block=3_000)
    boundaries = block_starts(stored)[1:]
    assert len(boundaries) == 67
    random = np.random.default_rng(4).integers(1, len(stored), 100).tolist()
    near_the_end = range(len(stored) - 29, len(stored))
    for size in [*boundaries, *random, *near_the_end, 1, 2, 17, 18, 27]:
        path = put(tmp_path, stored[:size])
        with RawInput(str(path)) as raw:
            parts = pieces(raw, threads=2)
            if size < 18:  # too short to be known as BGZF, or as gzip
                if size > 1:
                    with pytest.raises(DataError, match="truncated"):
                        list(parts)
                continue
            with pytest.raises(
                DataError, match=rf"x\.vcf\.gz is truncated at byte {size} \(no BGZF end-of-file"
            ):
                next(parts)


def test_a_truncated_stream_is_refused_at_its_end(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = bgzf(content, block=3_000)
    assert inflate_stream(stored, monkeypatch) == content
    for size in [*block_starts(stored)[1:], 5_000, len(stored) - 1]:
        with pytest.raises(DataError, match=f"standard input is truncated at byte {size} "):
            inflate_stream(stored[:size], monkeypatch)


def test_no_flipped_bit_changes_content(tmp_path: Path, content: bytes) -> None:
    stored = bgzf(content[:30_000], block=9_000)
    rng = np.random.default_rng(5)
    refused = 0
    for at in rng.integers(0, len(stored), 400).tolist():
        damaged = bytearray(stored)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            assert inflate(put(tmp_path, bytes(damaged))) == content[:30_000], at
        except DataError:
            refused += 1
    assert refused > 390  # the other bytes have no effect, such as the time of a block


def test_a_damaged_block_is_named_by_its_place(tmp_path: Path, content: bytes) -> None:
    stored = bytearray(bgzf(content))
    start = block_starts(bytes(stored))[2]
    stored[start + 1000] ^= 4
    with pytest.raises(DataError, match=f"the bgzip block at byte {start} fails its checksum"):
        inflate(put(tmp_path, bytes(stored)))


def test_a_block_that_lies_about_its_length(tmp_path: Path) -> None:
    block = bytearray(bgzf_block(b"A" * 60_000))
    block[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(DataError, match="block at byte 0 fails its checksum"):
        inflate(put(tmp_path, bytes(block) + END_OF_FILE))


@pytest.mark.slow
def test_a_small_block_that_inflates_to_much(tmp_path: Path) -> None:
    """Memory is never that of a whole group of such blocks: 100 of them would take 6 GB."""
    block = bytearray(bgzf_block(bytes(60 << 20)))
    assert len(block) < 1 << 16
    for length in (60 << 20, 1 << 16, 0):
        block[-4:] = length.to_bytes(4, "little")
        tracemalloc.start()
        with pytest.raises(DataError, match="block at byte 0 fails its checksum"):
            inflate(put(tmp_path, bytes(block) * 100 + END_OF_FILE), threads=1)
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
        tracemalloc.stop()


def test_reads_at_any_place(tmp_path: Path, content: bytes) -> None:
    other = b"RG\x03\x00abc"
    blocks = [bgzf_block(content[at : at + 999]) for at in range(0, 50_000, 999)]
    blocks[7] = bgzf_block(content[7 * 999 : 8 * 999], fields_before=other)
    blocks.insert(20, END_OF_FILE)  # as where files were joined
    whole = inflate(put(tmp_path, b"".join(blocks) + END_OF_FILE))
    file = BgzfFile(tmp_path / "x.vcf.gz")
    assert file.size == len(whole)
    rng = np.random.default_rng(6)
    for start in rng.integers(0, file.size + 10, 200).tolist():
        stop = start + int(rng.integers(0, 3_000))
        assert file.read(start, stop) == whole[start:stop]
    assert file.read(0, file.size) == whole
    file.close()


def test_what_is_refused_from_front_to_back_is_refused_at_any_place(
    tmp_path: Path, content: bytes
) -> None:
    stored = bgzf(content, block=3_000)
    boundaries = block_starts(stored)
    for size in [*boundaries[1:], 5_000, len(stored) - 1]:
        with pytest.raises(DataError, match=rf"is truncated at byte {size} \(no BGZF end-of-file"):
            BgzfFile(put(tmp_path, stored[:size]))
    with pytest.raises(DataError, match=f"7 bytes that are not bgzip .* at byte {len(stored)};"):
        BgzfFile(put(tmp_path, stored + b"garbage"))
    first = bgzf(content[:9_000], end=b"")
    between = first + gzip.compress(b"not bgzip") + END_OF_FILE
    with pytest.raises(DataError, match=f"at byte {len(first)} there is something other"):
        BgzfFile(put(tmp_path, between))
    damaged = bytearray(stored)
    damaged[boundaries[3] + 100] ^= 4
    file = BgzfFile(put(tmp_path, bytes(damaged)))
    assert file.read(0, 9_000) == content[:9_000]
    with pytest.raises(DataError, match=f"bgzip block at byte {boundaries[3]} fails its checksum"):
        file.read(8_999, 9_001)
    file.close()


def test_something_else_between_blocks(tmp_path: Path, content: bytes) -> None:
    first = bgzf(content[:9_000], end=b"")
    stored = first + gzip.compress(b"not bgzip") + END_OF_FILE
    with pytest.raises(DataError, match=f"at byte {len(first)} there is something other"):
        inflate(put(tmp_path, stored))


def test_garbage_behind_the_end(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = bgzf(content)
    with pytest.raises(DataError, match=f"7 bytes that are not bgzip .* at byte {len(stored)};"):
        inflate(put(tmp_path, stored + b"garbage"))
    with pytest.raises(DataError, match="standard input is truncated"):
        inflate_stream(stored + b"garbage", monkeypatch)


def test_leaving_early_ends_the_threads(tmp_path: Path, content: bytes) -> None:
    with RawInput(str(put(tmp_path, bgzf(content * 20, block=500)))) as raw:
        parts = pieces(raw, threads=2)
        next(parts)
        parts.close()


def test_gzip_with_several_members(tmp_path: Path, content: bytes) -> None:
    members = [gzip.compress(content[:50_000]), gzip.compress(b""), gzip.compress(content[50_000:])]
    assert inflate(put(tmp_path, b"".join(members))) == content


def test_gzip_that_inflates_to_much_more(tmp_path: Path) -> None:
    path = put(tmp_path, gzip.compress(bytes(30 << 20)))
    with RawInput(str(path)) as raw:
        sizes = [len(part) for part in pieces(raw, threads=1)]
    assert sum(sizes) == 30 << 20
    assert max(sizes) <= 4 << 20


def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    stored = gzip.compress(content)
    for size in (11, 1_000, len(stored) - 8, len(stored) - 1):
        with pytest.raises(DataError, match=rf"truncated at byte {size} \(its gzip data is not"):
            inflate(put(tmp_path, stored[:size]))
    flipped = bytearray(stored)
    flipped[-8] ^= 1
    with pytest.raises(DataError, match=r"cannot be inflated .*incorrect data check"):
        inflate(put(tmp_path, bytes(flipped)))
    with pytest.raises(DataError, match=f"not gzip follow its gzip data at byte {len(stored)};"):
        inflate(put(tmp_path, stored + b"garbage"))
