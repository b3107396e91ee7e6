"""A run in an object store with failing calls: each call once, or all from the k-th call on."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from support.builders import random_genome, random_records, write_fasta, write_model, write_vcf
from support.object_store import make_bucket, s3_server, use

import raygenome
from raygenome.errors import OutputError, StorageError
from raygenome.results.run_dir import RunDir, read_run
from raygenome.results.verify import verify
from raygenome.storage import bucket, lease
from raygenome.storage.bucket import Bucket

pytestmark = pytest.mark.slow

#: Every STEP-th call is tried as the first one to fail; every call if the variable says "all".
STEP = 1 if os.environ.get("RAYGENOME_IO_FAULTS") == "all" else 61


class Faults:
    """Decides which calls to the store fail, and counts them in `calls`."""

    def __init__(self) -> None:
        self.calls = 0
        self.each_once = False
        self.gone_from: int | None = None
        self._failed: set[tuple[str, str]] = set()

    def call(self, what: str, path: str) -> None:
        """Count a call, and raise OSError if it has to fail."""
        self.calls += 1
        gone = self.gone_from is not None and self.calls >= self.gone_from
        first = self.each_once and (what, path) not in self._failed
        self._failed.add((what, path))
        if gone or first:
            raise OSError(f"AWS Error NETWORK_CONNECTION during {what}: injected")


class FaultyFilesystem:
    """A pyarrow filesystem whose calls fail as `Faults` decides."""

    def __init__(self, within: fs.FileSystem, faults: Faults) -> None:
        self._within = within
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._within, name)
        if not callable(value):
            return value

        def call(path: Any, *more: Any, **named: Any) -> Any:
            self._faults.call(name, str(getattr(path, "base_dir", path)))
            return value(path, *more, **named)

        return call

    def open_output_stream(self, path: str, compression: None) -> "Upload":
        self._faults.call("open_output_stream", path)
        return Upload(self._within, path, self._faults)


class Upload:
    """An output stream whose object appears when it is closed, as with pyarrow."""

    def __init__(self, within: fs.FileSystem, path: str, faults: Faults) -> None:
        self._within = within
        self._path = path
        self._faults = faults
        self._written = b""

    def write(self, data: bytes) -> None:
        self._faults.call("write", self._path)
        self._written += data

    def close(self) -> None:
        self._faults.call("close", self._path)
        with self._within.open_output_stream(self._path, None) as file:
            file.write(self._written)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def faults(server: str, monkeypatch: pytest.MonkeyPatch) -> Faults:
    use(monkeypatch, server)
    monkeypatch.setattr(lease, "_HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lease, "_EXPIRES_S", 0.3)
    monkeypatch.setattr(bucket, "_PAUSE_S", 0.0)
    faults = Faults()
    begin = Bucket.__init__

    def faulty(self: Bucket, url: str) -> None:
        begin(self, url)
        self._fs: fs.FileSystem = FaultyFilesystem(self._fs, faults)

    monkeypatch.setattr(Bucket, "__init__", faulty)
    return faults


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    genome = random_genome(5, chr1=900, chr2=700, chrX=500)
    return {
        "vcf": write_vcf(tmp_path / "v.vcf", random_records(genome, 60)),
        "model": write_model(tmp_path / "stub"),
        "fasta": write_fasta(tmp_path / "genome.fa", genome),
        "workers": 0,
    }


def digests(run: str) -> dict[str, str]:
    """Return the digest of each file in run.json, after checking that all are whole."""
    assert verify(run, deep=True).whole
    document = read_run(run)
    listed = [*document["parts"], *document["files"]]
    unlisted = {"run.json", "_SUCCESS", "progress.json"}
    # On a busy machine a heartbeat of 0.1 s may arrive after its lease has ended.
    found = {name for name in RunDir(run).store.sizes() if not name.startswith(".work/writers/")}
    assert found <= {file["path"] for file in listed} | unlisted
    return {file["path"]: file["sha256"] for file in listed}


def test_a_call_that_fails_once_is_retried(faults: Faults, inputs: dict[str, Any]) -> None:
    make_bucket("once")
    whole = raygenome.score(**inputs, out="s3://once/whole")
    faults.each_once = True
    run = raygenome.score(**inputs, out="s3://once/run")
    faults.each_once = False
    assert digests(str(run.path)) == digests(str(whole.path))


def test_a_store_that_fails_from_the_kth_call_on(faults: Faults, inputs: dict[str, Any]) -> None:
    make_bucket("gone")
    whole = digests(str(raygenome.score(**inputs, out="s3://gone/whole").path))
    for k in itertools.count(1, STEP):
        faults.calls, faults.gone_from = 0, k
        place = f"s3://gone/{k}"
        with contextlib.suppress(StorageError, OutputError):
            raygenome.score(**inputs, out=place)
        faults.gone_from = None
        if faults.calls < k:
            break
        raygenome.score(**inputs, out=place, resume=True)
        assert digests(place) == whole, f"gone from call {k} on"
    assert k > 3 * STEP
