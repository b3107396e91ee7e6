"""Scoring runs in an object store, against a real S3 server."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pysam
import pytest
from pyarrow import fs
from support.builders import write_model
from support.object_store import gs_server, make_bucket, put, s3_server, use
from support.small_run import make_inputs
from support.vcf_files import random_vcf, write_forms

import raygenome
from raygenome.errors import DataError, NoInput, OutputError, StorageError
from raygenome.genome.alleles import Shard
from raygenome.results.open_run import read_finished
from raygenome.results.query import run_sql, top
from raygenome.results.run_dir import RunDir, read_run
from raygenome.results.verify import verify
from raygenome.scoring.shard import Scorer
from raygenome.storage import lease
from raygenome.storage.bucket import Bucket, read_bytes
from raygenome.storage.cache import local_copy
from raygenome.vcf.reader import open_vcf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


class Place:
    """A bucket, and the inputs of a small run both there and here."""

    def __init__(self, folder: Path) -> None:
        self.bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.fs: fs.FileSystem = make_bucket(self.bucket)
        self.here = make_inputs(folder)
        model = self.here["model"]
        for file in model.iterdir():
            put(self.fs, f"{self.bucket}/in/stub/{file.name}", file)
        self.there = {
            "vcf": self.put("in/v.vcf", self.here["vcf"]),
            "fasta": self.put("in/genome.fa", self.here["fasta"]),
            "model": f"s3://{self.bucket}/in/stub",
        }

    def put(self, name: str, file: Path) -> str:
        return put(self.fs, f"{self.bucket}/{name}", file)

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"


@pytest.fixture
def place(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    use(monkeypatch, server)
    monkeypatch.setattr(lease, "_HEARTBEAT_S", 0.5)
    monkeypatch.setattr(lease, "_EXPIRES_S", 3.0)
    return Place(tmp_path)


def rows_of(run: str) -> list[dict[str, Any]]:
    """Return all rows of the parts of a run."""
    store = RunDir(run).store
    found = []
    for part in read_run(run)["parts"]:
        with store.open(part["path"]) as file:
            found += pq.read_table(file).to_pylist()
    return found


def digests(document: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file of a run, by its name without a part's digest."""
    listed = [*document["parts"], *document["files"]]
    return {str(_plain(file["path"])): file["sha256"] for file in listed}


def _plain(name: str) -> Path:
    path = Path(name)
    stem = path.name.split(".")[0] if path.name.startswith("part-") else path.stem
    return path.with_name(f"{stem}.parquet")


def test_a_run_in_a_store_equals_the_run_in_a_folder(tmp_path: Path, place: Place) -> None:
    options = {"workers": 0, "shard_size": 100, "log_odds": True}
    here = raygenome.score(**place.here, out=tmp_path / "run", **options)
    there = raygenome.score(**place.there, out=place.url("out/run/"), **options)
    assert there.path == place.url("out/run")
    assert digests(there.document) == digests(here.document)
    assert verify(there.path, deep=True).whole
    left = set(RunDir(there.path).store.sizes())
    listed = {file["path"] for file in there.document["parts"] + there.document["files"]}
    assert left == listed | {"run.json", "_SUCCESS", "progress.json"}
    assert all(Path(part["path"]).name.count(".") == 2 for part in there.document["parts"])
    assert top(there.path, n=7) == top(here.path, n=7)
    statement = "SELECT chrom, count(*) AS n, sum(score) AS s FROM scores GROUP BY ALL ORDER BY 1"
    assert run_sql(there.path, statement).to_pylist() == run_sql(here.path, statement).to_pylist()
    assert there.query("SELECT count(*) AS n FROM log_odds")["n"][0] == here.counts["scored"]
    again = raygenome.score(**place.there, out=there.path, **options, resume=True)
    assert again.document == there.document


@pytest.mark.ray
def test_workers_write_to_a_store(tmp_path: Path, place: Place) -> None:
    options = {"workers": 2, "shard_size": 100}
    here = raygenome.score(**place.here, out=tmp_path / "run", **{**options, "workers": 0})
    there = raygenome.score(**place.there, out=place.url("run"), **options)
    assert digests(there.document) == digests(here.document)
    assert verify(there.path).whole


def test_only_what_was_not_committed_is_scored_again(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**place.there, "workers": 0, "shard_size": 50}
    whole = raygenome.score(**place.here, out=tmp_path / "whole", workers=0, shard_size=50)
    score_shard = Scorer.score_shard
    scored: list[int] = []

    def dying(self: Scorer, shard: Any) -> dict[str, Any]:
        if len(scored) == 5:
            raise KeyboardInterrupt
        scored.append(shard.index)
        return score_shard(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_shard", dying)
        with pytest.raises(KeyboardInterrupt):
            raygenome.score(**options, out=place.url("run"))
    assert json.loads(read_bytes(place.url("run/progress.json")))["state"] == "stopped"
    with pytest.raises(DataError, match="unfinished run"):
        verify(place.url("run"))
    stray = f"{place.bucket}/run/scores/chrom=chr1/part-00000.0123456789ab.parquet"
    with place.fs.open_output_stream(stray) as out:
        out.write(b"what a lost worker uploads late")
    with pytest.raises(OutputError, match="unfinished scoring run; add --resume or --overwrite"):
        raygenome.score(**options, out=place.url("run"))
    run = raygenome.score(**options, out=place.url("run"), resume=True)
    assert digests(run.document) == digests(whole.document)
    assert verify(run.path).whole, "the stray part is gone"


def test_killed_then_resumed(tmp_path: Path, place: Place) -> None:
    whole = raygenome.score(**place.here, out=tmp_path / "whole", workers=0, shard_size=10)
    names = ("vcf", "model", "fasta")
    vcf, model, fasta = (place.there[name] for name in names)
    words = ["score", vcf, "--model", model, "--fasta", fasta, "--out", place.url("run")]
    code = (
        "from raygenome.storage import lease\n"
        "lease._HEARTBEAT_S, lease._EXPIRES_S = 0.5, 3.0\n"
        "from raygenome.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *words, "--workers", "0", "--shard-size", "10"]
    process = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
    run = RunDir(place.url("run"))
    deadline = time.monotonic() + 60
    while len(run.store.sizes(".work/receipts")) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    assert "shards are committed already" in done.stderr
    assert digests(read_run(place.url("run"))) == digests(whole.document)


@pytest.mark.parametrize("where", ["store", "folder"])
def test_late_writes_of_a_replaced_run_are_refused(
    tmp_path: Path, place: Place, where: str
) -> None:
    """A worker of a run replaced by --overwrite comes back while the new run is at work."""
    out = place.url("run") if where == "store" else tmp_path / "run"
    given = {**place.there, "workers": 0, "shard_size": 50, "out": out}
    scorers: list[Scorer] = []
    make = Scorer.__init__

    def kept(self: Scorer, *args: Any) -> None:
        make(self, *args)
        scorers.append(self)

    score_shard = Scorer.score_shard

    def dying(self: Scorer, shard: Any) -> dict[str, Any]:
        if shard.index == 3:
            raise KeyboardInterrupt
        return score_shard(self, shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "__init__", kept)
        patch.setattr(Scorer, "close", lambda _: None)
        patch.setattr(Scorer, "score_shard", dying)
        for options in ({"strands": "forward"}, {"overwrite": True}):
            with pytest.raises(KeyboardInterrupt):
                raygenome.score(**given, **options)
    with pytest.raises(OutputError, match="was taken over by another raygenome"):
        scorers[0].score_shard(Shard(4, "chr1", "chr1", 200, 250))
    for scorer in scorers:
        scorer.close()
    run = raygenome.score(**given, resume=True)
    whole = raygenome.score(**{**given, "out": tmp_path / "whole"})
    assert digests(run.document) == digests(whole.document)


def test_an_expired_lease_is_not_renewed(place: Place) -> None:
    """Another writer considered the process dead and removed its heartbeat; it stays removed."""
    store = RunDir(place.url("run")).store
    with store.lock(RunDir.KIND):
        (heartbeat,) = store.sizes(".work/writers")
        store.remove(heartbeat)
        time.sleep(1.5)
        assert not store.sizes(".work/writers")


def test_two_runs_cannot_write_one_place(place: Place) -> None:
    run = RunDir(place.url("run"))
    with run.lock(), pytest.raises(OutputError, match="being written by another"):
        raygenome.score(**place.there, out=place.url("run"), workers=0, resume=True)
    raygenome.score(**place.there, out=place.url("run"), workers=0, resume=True)


def test_other_inputs_are_refused_on_resume(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            raygenome.score(**place.there, out=place.url("run"), workers=0)
    other = tmp_path / "other.vcf"
    other.write_text(place.here["vcf"].read_text().rsplit("\n", 2)[0] + "\n")
    place.put("in/v.vcf", other)
    with pytest.raises(DataError, match=r"vcf sha256 \w{64}, this is vcf sha256"):
        raygenome.score(**place.there, out=place.url("run"), workers=0, resume=True)
    run = raygenome.score(**place.there, out=place.url("run"), workers=0, overwrite=True)
    assert verify(run.path).whole


def test_the_vcf_is_not_fetched_again_for_its_digest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = raygenome.score(**place.there, out=place.url("run"), workers=0)
    monkeypatch.setattr(Bucket, "stream", lambda *_: pytest.fail("the VCF was read"))
    again = raygenome.score(**place.there, out=place.url("run"), workers=0, resume=True)
    assert again.document == run.document


def test_an_object_is_fetched_once_and_again_when_it_changed(place: Place) -> None:
    url = place.there["fasta"]
    copy = local_copy(url, companions=(".fai",))
    assert copy.read_bytes() == place.here["fasta"].read_bytes()
    before = copy.stat().st_mtime_ns
    assert local_copy(url, companions=(".fai",)).stat().st_mtime_ns == before
    other = place.here["fasta"].with_name("other.fa")
    other.write_text(">chr1\nACGT\n")
    place.put("in/genome.fa", other)
    assert local_copy(url).read_text() == ">chr1\nACGT\n"


def test_damage_is_found(place: Place) -> None:
    run = raygenome.score(**place.there, out=place.url("run"), workers=0, shard_size=100)
    name = run.document["parts"][2]["path"]
    content = bytearray(read_bytes(f"{run.path}/{name}"))
    content[len(content) // 2] ^= 1
    with place.fs.open_output_stream(f"{place.bucket}/run/{name}") as out:
        out.write(bytes(content))
    (problem,) = verify(run.path).problems
    assert problem.startswith(f"{name}: is damaged")


@pytest.mark.parametrize("name", ["vcf", "fasta", "model"])
def test_a_missing_input_is_an_error_of_one_line(place: Place, name: str) -> None:
    given = {**place.there, name: place.url("in/none")}
    with pytest.raises(NoInput, match=r"s3://test-\w+/in/none"):
        raygenome.score(**given, out=place.url("run"), workers=0)
    assert RunDir(place.url("run")).store.listdir() == set(), "nothing is left"


def test_a_missing_bucket_is_an_error_of_one_line(place: Place) -> None:
    out = f"s3://no-{uuid.uuid4().hex}/run"
    with pytest.raises((OutputError, StorageError), match="cannot write to s3://no-"):
        raygenome.score(**place.here, out=out, workers=0)
    for read in (verify, top, read_finished):
        with pytest.raises(NoInput, match=f"^{out}: there is no such bucket$"):
            read(out)
        with pytest.raises(NoInput, match="holds no run of `raygenome score`"):
            read(place.url("none"))


def test_objects_of_the_user_are_never_removed(place: Place) -> None:
    mine = place.put("run/thesis.txt", place.here["vcf"])
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match="holds no scoring run"):
            raygenome.score(**place.there, out=place.url("run"), workers=0, **options)
    assert read_bytes(mine) == place.here["vcf"].read_bytes()


def test_every_kind_of_vcf_from_a_store(place: Place, tmp_path: Path) -> None:
    for name, file in write_forms(tmp_path, random_vcf(300, 5)).items():
        with open_vcf(str(file)) as here, open_vcf(place.put(f"in/{name}", file)) as there:
            assert [tuple(batch) for batch in there] == [tuple(batch) for batch in here]
            assert (there.digest, there.size) == (here.digest, here.size)
            assert here.version is None
            assert there.version.startswith(f"{file.stat().st_size} bytes of ")


def test_a_truncated_vcf_is_refused(place: Place, tmp_path: Path) -> None:
    packed = write_forms(tmp_path, random_vcf(300, 5))["bgzip.vcf.gz"]
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError, match="is truncated at byte"):
        open_vcf(place.put("in/cut.vcf.gz", packed))


def indexed(place: Place, vcf: Path) -> str:
    """Upload a VCF, bgzipped, with its index; return its URL."""
    packed = vcf.with_suffix(".vcf.gz")
    pysam.tabix_compress(str(vcf), str(packed), force=True)
    pysam.tabix_index(str(packed), preset="vcf", force=True)
    place.put("in/packed.vcf.gz.tbi", Path(f"{packed}.tbi"))
    return place.put("in/packed.vcf.gz", packed)


def test_regions_are_read_through_the_index(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = indexed(place, place.here["vcf"])
    regions = ["chr1:500-900", "1:850-1,200", "chr1:1,202-1,203", "chrX:1-300"]
    options = {"workers": 0, "regions": regions}
    whole = raygenome.score(**place.here, out=tmp_path / "run", **options)
    monkeypatch.setattr(Bucket, "stream", lambda *_: pytest.fail("the whole VCF was read"))
    given = {**place.there, "vcf": url}
    run = raygenome.score(**given, out=tmp_path / "ranged", **options)
    for view in ("scores", "skipped"):
        found, wanted = (each.query(f"SELECT * FROM {view}") for each in (run, whole))
        assert len(found) == len(wanted)
        kept = [name for name in found.columns if name != "record"]
        pd.testing.assert_frame_equal(found[kept], wanted[kept])
    assert run.counts["read"] < whole.counts["read"]
    assert raygenome.score(**given, out=run.path, **options, resume=True).document == run.document


def test_without_an_index_the_whole_vcf_is_read(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = raygenome.score(**place.there, out=tmp_path / "run", workers=0, regions=["chr1:1-900"])
    assert "has no index (.tbi or .csi) beside it: the whole file is read" in caplog.text
    assert run.counts["filtered"] > 0


def test_google_storage(tmp_path: Path, place: Place) -> None:
    whole = raygenome.score(**place.here, out=tmp_path / "run", workers=0)
    with gs_server("mine") as host:
        options = f"?endpoint_override={host}&scheme=http&retry_limit_seconds=5"
        out = f"gs://anonymous@mine/out/run{options}"
        run = raygenome.score(**place.here, out=out, workers=0)
        assert digests(run.document) == digests(whole.document)
        assert verify(out).whole
        assert top(out, n=3) == top(whole.path, n=3)


def test_a_model_with_another_seed_is_another_model(tmp_path: Path, place: Place) -> None:
    first = raygenome.score(**place.there, out=place.url("first"), workers=0)
    for file in write_model(tmp_path / "other", seed=9).iterdir():
        put(place.fs, f"{place.bucket}/in/stub/{file.name}", file)
    second = raygenome.score(**place.there, out=place.url("second"), workers=0)
    assert first.document["identity"]["model sha256"] != second.document["identity"]["model sha256"]
    assert rows_of(first.path) != rows_of(second.path)
