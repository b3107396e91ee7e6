"""Reading the regions of a VCF in an object store through its index, against real S3 servers."""

import gzip
import os
import random
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pysam
import pytest
from pyarrow import fs
from support.object_store import make_bucket, put, s3_server, use
from support.small_run import make_inputs
from typer.testing import CliRunner

import raygenome
from raygenome.cli import app
from raygenome.errors import DataError
from raygenome.genome.intervals import OPEN_END, Interval, Regions
from raygenome.results.run_dir import read_run
from raygenome.scoring.shard import Scorer
from raygenome.storage.bgzf import END_OF_FILE
from raygenome.storage.bucket import Bucket
from raygenome.storage.input import input_version
from raygenome.vcf.index import ends_there, last_offset
from raygenome.vcf.reader import Selection, open_vcf

on_a_server = pytest.mark.slow

HEADER = (
    "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n"
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
)
EVERYTHING = [("chr1", 0, OPEN_END), ("chr2", 0, OPEN_END)]


def write_packed(path: Path, records: int, *, info: int = 8, index: str = ".tbi") -> Path:
    """Write a bgzipped VCF with `records` on each of two contigs, 1 kb apart, and its index."""
    noise = random.Random(records)
    lines = (
        f"{contig}\t{1000 * number}\t.\t{'A' * (1 + number % 5)}\tC\t.\tPASS\t"
        f"{noise.randbytes(info).hex()}\n"
        for contig in ("chr1", "chr2")
        for number in range(1, records + 1)
    )
    plain = path.with_suffix(".vcf")
    plain.write_text(HEADER + "".join(lines))
    pysam.tabix_compress(str(plain), str(path), force=True)
    pysam.tabix_index(str(path), preset="vcf", force=True, csi=index == ".csi")
    return path


@pytest.mark.parametrize("index", [".tbi", ".csi"])
@pytest.mark.parametrize(("records", "info"), [(3, 8), (4000, 40), (2, 200_000)])
def test_an_index_ends_with_its_file(tmp_path: Path, index: str, records: int, info: int) -> None:
    packed = write_packed(tmp_path / "v.vcf.gz", records, info=info, index=index)
    data = packed.read_bytes()
    end = last_offset(Path(f"{packed}{index}").read_bytes())
    assert end == (len(data) - len(END_OF_FILE)) << 16
    assert ends_there(end, len(data), data[-(1 << 17) :])
    assert not ends_there(end, len(data), data[-20:])
    for other in (2, records + 1, 2 * records):
        data = write_packed(tmp_path / "w.vcf.gz", other, info=min(info, 40)).read_bytes()
        assert not ends_there(end, len(data), data[-(1 << 17) :])


def test_where_other_writers_say_that_records_end() -> None:
    """Writers give the end of the last block, of its records, or of the file."""
    blocks = [gzip.compress(text) for text in (b"first\n", b"second\n\n")]
    data = b"".join(blocks) + END_OF_FILE
    start = len(blocks[0])
    for end in (start << 16 | 8, start << 16 | 7, len(data) << 16):
        assert ends_there(end, len(data), data)
    for end in (0, 5, start << 16, start << 16 | 3, start << 16 | 9, start + 1 << 16):
        assert not ends_there(end, len(data), data)


def test_counts_are_no_offsets() -> None:
    """The pseudo-bin behind the bins has two counts in place of a second chunk."""
    chunk, counts = struct.pack("<QQ", 5, 7 << 16), struct.pack("<QQ", 1, 1 << 60)
    tbi = b"TBI\1" + struct.pack("<8ii", 1, 2, 1, 2, 0, 35, 0, 0, 2)
    tbi += struct.pack("<Ii", 4681, 1) + chunk
    tbi += struct.pack("<Ii", 37450, 2) + chunk + counts + struct.pack("<i", 0)
    csi = b"CSI\1" + struct.pack("<iii3xii", 14, 6, 3, 1, 2)
    csi += struct.pack("<IQi", 37449, 0, 1) + chunk
    csi += struct.pack("<IQi", 299594, 0, 2) + chunk + counts
    for content in (tbi, csi):
        assert last_offset(gzip.compress(content)) == 7 << 16


def test_what_is_no_index() -> None:
    empty = b"TBI\1" + struct.pack("<8i", 0, 2, 1, 2, 0, 35, 0, 0)
    assert last_offset(gzip.compress(empty)) == 0
    for content in (empty[:-2], b"TBI\1" + struct.pack("<8i", 1, 2, 1, 2, 0, 35, 0, 0)):
        with pytest.raises(ValueError, match="damaged"):
            last_offset(gzip.compress(content))
    with pytest.raises(ValueError, match=r"neither \.tbi nor \.csi"):
        last_offset(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="damaged"):
        last_offset(b"<html>")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


class Place:
    """A new bucket."""

    def __init__(self, bucket: str | None = None) -> None:
        self.bucket = bucket or f"test-{uuid.uuid4().hex[:12]}"
        self.fs: fs.FileSystem = make_bucket(self.bucket)

    def put(self, name: str, file: Path) -> str:
        return put(self.fs, f"{self.bucket}/{name}", file)

    def put_packed(self, packed: Path, name: str = "v.vcf.gz") -> str:
        """Upload a VCF with its index."""
        self.put(f"{name}.tbi", Path(f"{packed}.tbi"))
        return self.put(name, packed)

    def put_again(self, name: str, file: Path) -> None:
        """Upload a file until it has another version; the server counts in seconds."""
        url = f"s3://{self.bucket}/{name}"
        before, deadline = input_version(url), time.monotonic() + 10
        while input_version(url) == before:
            assert time.monotonic() < deadline
            self.put(name, file)


@pytest.fixture
def place(server: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    use(monkeypatch, server)
    return Place()


def selection(*intervals: Interval) -> Selection:
    return Selection(Regions(intervals), lambda name: name)


def sites(url: str, *intervals: Interval) -> list[tuple[str, int]]:
    """Return contig and position of the records that are read for some regions."""
    with open_vcf(url, only=selection(*intervals)) as reader:
        return [
            site
            for batch in reader
            for site in zip(batch.chrom.to_pylist(), batch.pos.to_pylist(), strict=True)
        ]


@pytest.fixture
def no_whole_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bucket, "stream", lambda *_: pytest.fail("the whole VCF was read"))


@on_a_server
@pytest.mark.parametrize(("was", "is_now"), [(3, 4), (3, 5000), (5000, 5010), (5000, 3)])
def test_with_the_index_of_an_earlier_file_all_is_read(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, was: int, is_now: int
) -> None:
    place.put_packed(write_packed(tmp_path / "was.vcf.gz", was))
    url = place.put("v.vcf.gz", write_packed(tmp_path / "now.vcf.gz", is_now))
    assert len(sites(url, *EVERYTHING)) == 2 * is_now
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message == (
        f"the index of {url} (.tbi) belongs to another file; make a new one: the whole file is read"
    )


@on_a_server
@pytest.mark.parametrize("cut", [5, 28, 40])
def test_a_vcf_that_was_cut_is_refused_with_its_index(
    place: Place, tmp_path: Path, cut: int
) -> None:
    packed = write_packed(tmp_path / "v.vcf.gz", 5000)
    packed.write_bytes(packed.read_bytes()[:-cut])
    url = place.put_packed(packed)
    with pytest.raises(DataError, match="is truncated at byte"):
        sites(url, ("chr1", 0, 5000))


@on_a_server
@pytest.mark.usefixtures("no_whole_read")
def test_a_region_beyond_all_positions_holds_nothing(place: Place, tmp_path: Path) -> None:
    url = place.put_packed(write_packed(tmp_path / "v.vcf.gz", 5))
    beyond = [("chr1", start, OPEN_END) for start in (2**29 + 5, 2**31 - 2, 2**31 + 5)]
    for interval in beyond:
        assert sites(url, interval) == []
    assert sites(url, ("chr1", 4500, 5000), *beyond) == [("chr1", 5000)]


@on_a_server
@pytest.mark.usefixtures("no_whole_read")
def test_near_regions_are_read_as_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []

    class Counting(pysam.TabixFile):
        def fetch(self, *args: Any) -> Any:
            fetched.append(args)
            return super().fetch(*args)

    monkeypatch.setattr(pysam, "TabixFile", Counting)
    url = place.put_packed(write_packed(tmp_path / "v.vcf.gz", 3000))
    noise = random.Random(5)
    # Clusters are 100 kb apart; each has regions of one to four bases right behind records.
    intervals = [
        (contig, start, start + noise.randint(1, 4))
        for contig in ("chr2", "chr1")
        for cluster in range(10)
        for start in (200_000 * cluster + 1000 * number for number in range(1, 101))
    ]
    wanted = Regions(intervals)
    found = sites(url, *noise.sample(intervals, len(intervals)))
    assert len(fetched) == 20
    assert found == sorted(set(found)), "once, and in order"
    assert len(found) < 2100, "not what lies between clusters"
    for contig in ("chr1", "chr2"):
        starts = np.arange(1000, 3_000_001, 1000) - 1
        inside = wanted.overlaps(contig, starts, starts + 1 + np.arange(1, 3001) % 5)
        assert inside.sum() > 700
        assert {(contig, int(start) + 1) for start in starts[inside]} <= set(found)


@on_a_server
@pytest.mark.parametrize("ranged", [True, False])
def test_an_object_that_changes_while_it_is_read(
    place: Place, tmp_path: Path, ranged: bool
) -> None:
    url = place.put_packed(write_packed(tmp_path / "v.vcf.gz", 10))
    only = selection(("chr1", 0, 5000)) if ranged else None
    with open_vcf(url, batch_records=2, only=only) as reader:
        assert reader.ranged == ranged
        rest = iter(reader)
        next(rest)
        place.put("v.vcf.gz", write_packed(tmp_path / "other.vcf.gz", 11))
        with pytest.raises(DataError, match=r"v\.vcf\.gz was changed while it was read; repeat"):
            list(rest)


@on_a_server
@pytest.mark.usefixtures("no_whole_read")
def test_two_endpoints_in_one_session(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTS_S3_ADDRESS_STYLE", "virtual")
    monkeypatch.delenv("HTS_S3_HOST", raising=False)
    url = place.put_packed(write_packed(tmp_path / "v.vcf.gz", 5))
    with s3_server() as other:
        assert len(sites(url, *EVERYTHING)) == 10
        assert "HTS_S3_HOST" not in os.environ
        assert os.environ["HTS_S3_ADDRESS_STYLE"] == "virtual"
        use(monkeypatch, other)
        assert Place(place.bucket).put_packed(write_packed(tmp_path / "w.vcf.gz", 7)) == url
        assert len(sites(url, *EVERYTHING)) == 14
        assert "HTS_S3_HOST" not in os.environ


@on_a_server
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda url: f"{url}?scheme=http",
            "htslib supports neither options after ?",
        ),
        (
            lambda url: url.replace("v.vcf", "a%20b.vcf"),
            "may change special characters",
        ),
        (lambda url: url.replace("v.vcf", "plain.vcf"), "is not compressed with bgzip"),
        (lambda url: url.replace("v.vcf", "odd.vcf"), "(.tbi) is damaged"),
    ],
)
def test_what_htslib_would_read_otherwise_is_read_whole(
    place: Place,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[str], str],
    why: str,
) -> None:
    packed = write_packed(tmp_path / "v.vcf.gz", 5)
    url = place.put_packed(packed)
    place.put_packed(packed, "a%20b.vcf.gz")
    place.put("plain.vcf.gz.tbi", Path(f"{packed}.tbi"))
    place.put("plain.vcf.gz", packed.with_suffix(".vcf"))
    place.put("odd.vcf.gz.tbi", packed.with_suffix(".vcf"))
    place.put("odd.vcf.gz", packed)
    assert len(sites(change(url), ("chr1", 0, 10))) == 10
    (message,) = caplog.messages
    assert why in message
    assert message.endswith(": the whole file is read")


@pytest.fixture
def run_inputs(place: Place, tmp_path: Path) -> dict[str, Any]:
    """Return the inputs of a small run, with its indexed VCF in the store."""
    given = make_inputs(tmp_path)
    packed = given["vcf"].with_suffix(".vcf.gz")
    pysam.tabix_compress(str(given["vcf"]), str(packed), force=True)
    pysam.tabix_index(str(packed), preset="vcf", force=True)
    place.put_packed(packed)
    return {**given, "vcf": f"s3://{place.bucket}/v.vcf.gz", "workers": 0}


@on_a_server
@pytest.mark.usefixtures("no_whole_read")
def test_a_run_of_regions_is_resumed_when_the_same_vcf_was_uploaded_again(
    place: Place,
    tmp_path: Path,
    run_inputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {**run_inputs, "out": tmp_path / "run", "regions": ["chr1:500-900"]}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            raygenome.score(**given)
    place.put_again("v.vcf.gz", tmp_path / "v.vcf.gz")
    run = raygenome.score(**given, resume=True)
    assert run.document["inputs"]["vcf"]["ranged"] is True
    place.put_again("v.vcf.gz", tmp_path / "v.vcf.gz")
    assert raygenome.score(**given, resume=True).document == run.document
    place.put_packed(write_packed(tmp_path / "other.vcf.gz", 3))
    with pytest.raises(DataError, match=r"vcf sha256 \w{64}, this is vcf sha256"):
        raygenome.score(**given, resume=True)


@on_a_server
def test_regions_from_a_bed_in_a_store(
    place: Place, tmp_path: Path, run_inputs: dict[str, Any]
) -> None:
    bed = tmp_path / "some.bed"
    bed.write_text("chr1\t499\t900\n")
    url = place.put("in/some.bed", bed)
    words = ["score", run_inputs["vcf"], "--workers", "0", "-R", url]
    for name in ("model", "fasta"):
        words += [f"--{name}", str(run_inputs[name])]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "there")])
    assert done.exit_code == 0, done.output
    there = read_run(tmp_path / "there")
    here = raygenome.score(**run_inputs, out=tmp_path / "here", regions_file=[bed])
    assert there["counts"] == here.counts
    assert here.counts["scored"] > 0
