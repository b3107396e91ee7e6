"""The stored bytes: digests, pipes, and files that are not there or are something else."""

import bz2
import hashlib
import io
import lzma
import os
import threading
import zipfile
from pathlib import Path

import pytest

from raygenome.errors import DataError, NoInput
from raygenome.storage.bgzf import inflated_head
from raygenome.storage.input import (
    PEEK,
    RawInput,
    digest_input,
    refuse_other_kinds,
)


def test_peeking_takes_nothing_away(tmp_path: Path) -> None:
    content = os.urandom(3 * PEEK + 17)
    path = tmp_path / "x"
    path.write_bytes(content)
    with RawInput(str(path)) as raw:
        assert raw.stored_size == len(content)
        assert raw.peek() == content[:PEEK]
        assert raw.read(10) == content[:10]
        assert raw.peek() == content[10 : PEEK + 10]
        assert raw.read(2 * PEEK) == content[10 : 2 * PEEK + 10]
        assert raw.read(1 << 30) == content[2 * PEEK + 10 :]
        assert raw.read(1) == b""
        assert raw.offset == len(content)
        assert raw.digest == hashlib.sha256(content).hexdigest()
        assert raw.tail(5) == content[-5:]
    assert digest_input(str(path)) == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_pipe_that_dribbles(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as out:
            for at in range(0, len(content), 977):
                out.write(content[at : at + 977])

    writer = threading.Thread(target=write)
    writer.start()
    with RawInput(str(path)) as raw:
        assert raw.stored_size is None
        raw.copy_to = io.BytesIO()
        sizes = [len(data) for data in iter(lambda: raw.read(100_000), b"")]
        assert sizes == [100_000, 100_000, 100_000]
        assert raw.copy_to.getvalue() == content
        assert raw.digest == hashlib.sha256(content).hexdigest()
    writer.join()


def test_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoInput, match=r"no file .*gone.vcf; give a VCF or BCF"):
        RawInput(str(tmp_path / "gone.vcf"))
    with pytest.raises(NoInput, match="is a directory"):
        RawInput(str(tmp_path))
    with pytest.raises(NoInput, match="cannot be opened"):
        RawInput("a\0b")
    (tmp_path / "empty.vcf").touch()
    with pytest.raises(NoInput, match=r"empty.vcf is empty \(0 bytes\)"):
        RawInput(str(tmp_path / "empty.vcf"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NoInput, match="cannot be opened"):
        RawInput(str(tmp_path / "file" / "x.vcf"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(NoInput, match="standard input is empty"):
        RawInput("-")


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.vcf", "##fileformat=VCFv4.2\n")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE HTML><title>404</title>", "is a web page"),
        (b'<?xml version="1.0"?><Error>', "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (zipped(), "is a zip archive.*unzip it"),
        (bz2.compress(b"##fileformat"), "bunzip2"),
        (lzma.compress(b"##fileformat"), "unxz"),
        (b"BAM\x01\0\0", "is a BAM file"),
        (b"BCF\x04\0\0", "BCF of version 1"),
        (b">chr1\nACGT\n", "is a FASTA file"),
        ("##fileformat".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\0\0\0\0", "is binary data"),
    ],
)
def test_other_kinds_are_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"^x.vcf.gz {message}|^x.vcf.gz .*{message}") as caught:
        refuse_other_kinds("x.vcf.gz", content)
    assert "\n" not in str(caught.value)


def test_the_head_of_a_truncated_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x1f\x8bnonsense")
    with RawInput(str(path)) as raw:
        assert inflated_head(raw) == b""
