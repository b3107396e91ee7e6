"""Complete inputs in every form, read with `open_vcf`."""

import gzip
import hashlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from support.vcf_files import (
    HEADER,
    Site,
    bgzf,
    block_starts,
    random_vcf,
    slow_sites,
    write_bcf,
    write_forms,
)

from raygenome.errors import DataError, NoInput, RaygenomeError
from raygenome.vcf import reader as reader_module
from raygenome.vcf.reader import digest_input, open_vcf


def read(path: Path | str, *, batch_records: int = 1000, threads: int = 2) -> list[Site]:
    rows: list[Site] = []
    with open_vcf(str(path), batch_records=batch_records, threads=threads) as reader:
        for batch in reader:
            assert batch.first_record == len(rows)
            rows.extend(zip(*(column.to_pylist() for column in batch[1:]), strict=True))
    assert reader.records == len(rows)
    return rows


def stand_in(stored: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stored)))
    return "-"


@pytest.mark.slow
def test_the_same_from_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    print("seed", seed)
    text = random_vcf(3_000, seed)
    expected, _ = slow_sites(text.encode())
    for name, path in write_forms(tmp_path, text).items():
        assert read(path) == expected, name
        assert read(stand_in(path.read_bytes(), monkeypatch)) == expected, f"{name} as a stream"
        digest = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        assert digest_input(str(path)) == digest
        with open_vcf(str(path)) as reader:
            assert reader.header.contigs == {"chr20": 64444167, "HLA-A*01:01": None}
            assert reader.header.n_columns == 11
            assert sum(len(batch.pos) for batch in reader) == 3_000
        assert (reader.digest, reader.size) == digest


@pytest.mark.slow
def test_batches_are_even_whatever_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in write_forms(tmp_path, random_vcf(2_500, 7)).items():
        for threads in (1, 3):
            with open_vcf(str(path), batch_records=999, threads=threads) as reader:
                sizes = [(batch.first_record, len(batch.alt)) for batch in reader]
            assert sizes == [(0, 999), (999, 999), (1_998, 502)], name
    monkeypatch.setattr(reader_module, "_BATCH_BYTES", 10_000)
    text = random_vcf(2_500, 7)
    with open_vcf(stand_in(text.encode(), monkeypatch), batch_records=999) as reader:
        assert [len(batch.pos) for batch in reader] == [999, 999, 502]
    with open_vcf(str(tmp_path / "small_blocks.vcf.bgz"), batch_records=999) as reader:
        sizes = [len(batch.pos) for batch in reader]
    assert sum(sizes) == 2_500
    assert max(sizes) < 999


def test_a_named_pipe(tmp_path: Path) -> None:
    text = random_vcf(1_000, 11)
    for suffix, stored in (("vcf", text.encode()), ("gz", bgzf(text.encode()))):
        pipe = tmp_path / f"pipe.{suffix}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(stored,))
        writer.start()
        assert read(pipe) == slow_sites(text.encode())[0]
        writer.join()


def test_digest_waits_for_the_end_and_records_are_read_once(tmp_path: Path) -> None:
    path = write_forms(tmp_path, random_vcf(10, 1))["plain.vcf"]
    with open_vcf(str(path)) as reader:
        with pytest.raises(RuntimeError, match="once all records have been read"):
            _ = reader.digest
        assert len(list(reader)) == 1
        assert reader.digest
        with pytest.raises(RuntimeError, match="read once"):
            list(reader)


def test_a_header_without_records(tmp_path: Path) -> None:
    for name, path in write_forms(tmp_path, HEADER).items():
        assert read(path) == [], name


def test_blank_lines_are_counted_and_do_not_number(tmp_path: Path) -> None:
    path = tmp_path / "x.vcf"
    row = "chr20\t5\t.\tA\tC\t.\t.\t.\tGT\t0\t0\n"
    path.write_text(HEADER + row + "\n\n" + row + "\r\n" + row)
    with open_vcf(str(path), batch_records=1) as reader:
        assert [batch.first_record for batch in reader] == [0, 1, 2]
    assert reader.blank_lines == 3


def test_every_truncation_of_a_bgzip_file_is_refused(tmp_path: Path) -> None:
    stored = bgzf(random_vcf(300, 2).encode(), block=1_500)
    path = tmp_path / "x.vcf.gz"
    random = np.random.default_rng(6).integers(18, len(stored), 60).tolist()
    for size in [*block_starts(stored)[1:], *random, len(stored) - 1]:
        path.write_bytes(stored[:size])
        with pytest.raises(DataError, match=f"is truncated at byte {size}"):
            open_vcf(str(path))


def test_a_damaged_bcf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_forms(tmp_path, random_vcf(300, 3))["binary.bcf"]
    stored, content = path.read_bytes(), gzip.decompress(path.read_bytes())
    for size in (*block_starts(stored)[1:], len(stored) // 2):
        path.write_bytes(stored[:size])
        with pytest.raises(DataError, match="is truncated at byte"):
            open_vcf(str(path))
        with pytest.raises(DataError, match="standard input is truncated at byte"):
            open_vcf(stand_in(stored[:size], monkeypatch))
    path.write_bytes(bgzf(content[:-20]))
    with pytest.raises(DataError, match=r"is damaged: its BCF record \d+ cannot be parsed"):
        read(path)
    path.write_bytes(bgzf(content[:60]))
    with pytest.raises(DataError, match="BCF header is truncated"):
        open_vcf(str(path))
    path.write_bytes(bgzf(content[:9] + content[9:].replace(b"#CHROM", b"##HROM")))
    with pytest.raises(DataError, match="BCF header has no '#CHROM' line"):
        open_vcf(str(path))


def test_bcf_that_is_not_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = random_vcf(200, 4)
    plain = write_forms(tmp_path, text)["plain.vcf"]
    path = write_bcf(tmp_path / "plain.bcf", plain, "wb0")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(content)
    assert read(path) == slow_sites(text.encode())[0]
    assert read(stand_in(content, monkeypatch)) == slow_sites(text.encode())[0]


@pytest.mark.parametrize(
    ("stored", "error", "message"),
    [
        (b"", NoInput, "is empty"),
        (gzip.compress(b"", mtime=0), NoInput, "holds nothing once inflated"),
        (bgzf(b""), NoInput, "holds nothing once inflated"),
        (gzip.compress(b"<html>Not Found</html>", mtime=0), DataError, "is a web page"),
        (bgzf(b">chr1\nACGT\n"), DataError, "is a FASTA file"),
        (b"version https://git-lfs.github.com/spec/v1\n", DataError, "git lfs pull"),
        (b"chr1\t0\t5\n", DataError, "is not a VCF: its first line"),
        (b"\x90\x91*)\x97\xca\x98\x9a\0\0", DataError, "."),
        (b"\x1f\x8bnonsense", DataError, "is damaged"),
        (b"\x1f\x8b", DataError, "is truncated"),
        (b"\x1f", DataError, "is not a VCF"),
    ],
)
def test_what_is_no_vcf_is_named(
    tmp_path: Path, stored: bytes, error: type[RaygenomeError], message: str
) -> None:
    path = tmp_path / "x.vcf.gz"
    path.write_bytes(stored)
    with pytest.raises(error, match=message) as caught:
        open_vcf(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(NoInput, match="there is no file"):
        open_vcf(str(tmp_path / "other.vcf.gz"))


def test_memory_is_flat(tmp_path: Path) -> None:
    """The data waiting between the file and the consumer must not grow with the file."""
    path = tmp_path / "x.vcf.gz"
    body = "chr20\t7\trs7\tA\tC\t.\tPASS\tS=" + "x" * 300 + "\tGT\t0\t0\n"
    path.write_bytes(bgzf((HEADER + body * 150_000).encode()))
    import resource

    with open_vcf(str(path), batch_records=1_000) as reader:
        batches = iter(reader)
        next(batches)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(len(batch.pos) for batch in batches) == 149_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kilobytes


@pytest.mark.slow
def test_conformance_corpus(real_data: Path) -> None:
    files = sorted((real_data / "vcf-conformance" / "hts-specs").rglob("*.vcf"))
    refused = {}
    for path in files:
        try:
            with open_vcf(str(path)) as reader:
                count = sum(len(batch.pos) for batch in reader)
        except (DataError, NoInput) as error:
            refused[path] = str(error)
        else:
            assert count == len(slow_sites(path.read_bytes())[0]), path
    assert len(files) > 600
    assert all(
        message.startswith(str(path)) and "\n" not in message for path, message in refused.items()
    )
    # Errors in meta lines, INFO or samples alone must not stop the reading.
    kinds = ("fileformat", "header", "empty")
    assert all(path.name.startswith(tuple(f"failed_{k}" for k in kinds)) for path in refused)


@pytest.mark.slow
def test_real_files(real_data: Path) -> None:
    names = ["1000g_chr22_16-16.5M.genotypes", "exac_chr22_17.4-17.7M.sites.vep"]
    for name in names:
        path = real_data / "hg19" / "vcf" / f"{name}.vcf.gz"
        assert read(path) == slow_sites(gzip.decompress(path.read_bytes()))[0]
