"""Datasets in an object store, against a real S3 server: the same bytes as in a folder."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.builders import random_genome, write_fasta
from support.object_store import make_bucket, s3_server, use
from support.peak_files import random_peaks, write_table
from support.published_files import deepsea_files

from raygenome.datasets import writer
from raygenome.datasets.build import build
from raygenome.datasets.imports import import_files
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, NoInput, OutputError
from raygenome.storage import lease
from raygenome.storage.object_store import ObjectStore

pytestmark = pytest.mark.slow

PART_ROWS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket."""
    use(monkeypatch, server)
    monkeypatch.setenv("RAYGENOME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lease, "_HEARTBEAT_S", 0.5)
    monkeypatch.setattr(lease, "_EXPIRES_S", 3.0)
    monkeypatch.setattr(writer, "PART_ROWS", PART_ROWS)
    name = f"test-{uuid.uuid4().hex[:12]}"
    make_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    genome = random_genome(0, chr1=60_000, chr2=30_000)
    lengths = {name: len(bases) for name, bases in genome.items()}
    sets = {f"t{i}": random_peaks(rng, lengths, 40, longest=400) for i in range(3)}
    return {
        "recipe": "basset",
        "fasta": str(write_fasta(tmp_path / "genome.fa", genome)),
        "peaks": str(write_table(tmp_path, sets)),
        "test": ["chr2"],
        "negatives": 5,
    }


def content(url: str) -> dict[str, bytes]:
    """Return all objects below a URL."""
    store = ObjectStore(url)
    return {name: store.read(name) for name in store.sizes()}


def content_of_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


_KILLED_BUILD = """
import json, os, signal, sys
from raygenome.datasets import writer
from raygenome.datasets.build import build
writer.PART_ROWS = 20
write, parts = writer.DatasetWriter.write, []
def dying(self, *arguments):
    if len(parts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    parts.append(write(self, *arguments))
writer.DatasetWriter.write = dying
build(**json.loads(sys.argv[1]))
"""


def test_a_build_is_killed_and_resumed_to_the_same_bytes(
    bucket: str, given: dict[str, Any], tmp_path: Path
) -> None:
    build(**given, out=tmp_path / "data")
    url = f"{bucket}/some/data"
    options = json.dumps({**given, "out": url})
    done = subprocess.run([sys.executable, "-c", _KILLED_BUILD, options], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    receipts = [name for name in ObjectStore(url).sizes(".work/parts") if name.endswith(".json")]
    assert len(receipts) == 2
    with pytest.raises(NoInput, match="unfinished; continue it with --resume"):
        Dataset.open(url)
    with pytest.raises(OutputError, match="holds an unfinished dataset"):
        build(**given, out=url)
    with pytest.raises(DataError, match="another negatives"):
        build(**{**given, "negatives": 6}, out=url, resume=True)
    build(**given, out=url, resume=True)
    assert content(url) == content_of_folder(tmp_path / "data")


def test_a_dataset_is_read_from_the_store(
    bucket: str, given: dict[str, Any], tmp_path: Path
) -> None:
    """Each file is fetched when it is first needed, and only once."""
    here = build(**given, out=tmp_path / "data")
    there = build(**given, out=f"{bucket}/data")
    fetched = tmp_path / "home" / "cache"
    assert not list(fetched.rglob("train.rows")), "opening fetches no rows"
    assert there.digest == here.digest
    there.verify()
    for name in ("train", "valid", "test"):
        one, other = here.split(name), there.split(name)
        np.testing.assert_array_equal(other.codes(slice(None)), one.codes(slice(None)))
        np.testing.assert_array_equal(other.labels(slice(None)), one.labels(slice(None)))
        np.testing.assert_array_equal(other.negatives(), one.negatives())
    (copy,) = fetched.rglob("train.rows")
    before = copy.stat().st_mtime_ns
    Dataset.open(f"{bucket}/data").verify()
    assert copy.stat().st_mtime_ns == before


def test_an_import_goes_to_the_store(bucket: str, tmp_path: Path) -> None:
    files, _ = deepsea_files(tmp_path / "in", train=50, valid=3)
    import_files(files, out=tmp_path / "data")
    import_files(files, out=f"{bucket}/data")
    assert content(f"{bucket}/data") == content_of_folder(tmp_path / "data")
    with pytest.raises(OutputError, match="holds a finished dataset"):
        import_files(files, out=f"{bucket}/data")
    import_files(files, out=f"{bucket}/data", overwrite=True)
    assert content(f"{bucket}/data") == content_of_folder(tmp_path / "data")


def test_another_output_in_the_store_is_left_alone(bucket: str, given: dict[str, Any]) -> None:
    store = ObjectStore(f"{bucket}/mine")
    store.publish_text("years of work", "thesis.txt")
    store.close()
    with pytest.raises(OutputError, match="is not empty and holds no dataset"):
        build(**given, out=f"{bucket}/mine", overwrite=True)
    assert content(f"{bucket}/mine") == {"thesis.txt": b"years of work"}
