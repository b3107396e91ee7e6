"""URLs of object stores, the operations on them, and local copies of objects."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.object_store import make_bucket, s3_server, use

from raygenome.errors import DataError, StorageError, UsageError
from raygenome.storage import bucket as bucket_module
from raygenome.storage.bucket import Bucket, StoreError, is_remote
from raygenome.storage.cache import local_copy
from raygenome.storage.tempdirs import TempDir, remove_dead_temp_dirs


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, server)
    name = f"test-{time.monotonic_ns()}"
    make_bucket(name)
    return name


def test_which_places_are_urls() -> None:
    assert is_remote("s3://bucket/name")
    assert is_remote("gs://bucket")
    for place in ("scores", "/data/v.vcf", "./s3:/x", Path("a/b"), "C3", "chr1:5-6", "a:b/c"):
        assert not is_remote(place) or place == "a:b/c"


@pytest.mark.parametrize(
    "place", ["S3://b/x", "s3:/b/x", Path("s3://b/x"), "http://b/x", "hdfs://n/x", "file:///x"]
)
def test_urls_of_other_kinds_are_refused(place: str | Path) -> None:
    with pytest.raises(
        UsageError, match="nor a URL of a supported object store; write s3://BUCKET/NAME"
    ):
        is_remote(place)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://b//x", "has an empty name"),
        ("s3://b/x/../y", "has an empty name, or . or .."),
        ("s3://key:secret@b/x", "a URL of s3://b holds a password"),
    ],
)
def test_malformed_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Bucket(url)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a#b", "a b", "a[1]", "a%20b", "ä", "a+b=c&d", "x*y", "q'q"])
def test_names_are_not_decoded(bucket: str, name: str) -> None:
    place = Bucket(f"s3://{bucket}/{name}")
    place.put(b"one", "part")
    assert Bucket(f"s3://{bucket}").files() == {f"{name}/part": 3}
    assert place.sibling("/part").read() == b"one"
    assert place.url == f"s3://{bucket}/{name}"


@pytest.mark.slow
def test_the_message_for_a_missing_bucket_is_short(bucket: str) -> None:
    with pytest.raises(StoreError) as caught:
        Bucket(f"s3://{bucket}-none/x").put(b"", "y")
    assert caught.value.why == "there is no such bucket"
    assert "Request ID" not in str(caught.value)


@pytest.mark.slow
def test_a_full_local_disk_is_no_error_of_the_store(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing to /dev/full always fails with "no space left"."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    place = Bucket(f"s3://{bucket}/x")
    place.put(b"content", "")
    monkeypatch.setattr(bucket_module.time, "sleep", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(StorageError, match="No space left on device; free some space there"):
        place.download("", Path("/dev/full"))


@pytest.mark.slow
def test_an_object_replaced_while_it_is_fetched(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(f"s3://{bucket}/x")
    place.put(b"old", "")
    download = Bucket.download

    def replaced(self: Bucket, name: str, file: Path) -> None:
        download(self, name, file)
        place.put(b"newer", "")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "download", replaced)
        with pytest.raises(DataError, match="was replaced while it was fetched"):
            local_copy(place.url)
    assert local_copy(place.url).read_bytes() == b"newer"


@pytest.mark.slow
def test_a_changed_companion_is_fetched_again(bucket: str) -> None:
    place = Bucket(f"s3://{bucket}/g.fa")
    place.put(b">c", "")
    place.sibling(".fai").put(b"wrong", "")
    assert (
        local_copy(place.url, companions=(".fai",)).with_name("g.fa.fai").read_bytes() == b"wrong"
    )
    place.sibling(".fai").put(b"right!", "")
    assert (
        local_copy(place.url, companions=(".fai",)).with_name("g.fa.fai").read_bytes() == b"right!"
    )


def test_temporary_folders_of_dead_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    mine = TempDir()
    code = (
        "import os, signal; from raygenome.storage.tempdirs import TempDir\n"
        "(TempDir().path / 'part').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    folders = [path for path in mine.path.parent.iterdir() if path.is_dir()]
    assert len(folders) == 2
    remove_dead_temp_dirs()
    assert [path for path in mine.path.parent.iterdir() if path.is_dir()] == [mine.path]
    mine.close()
    assert not mine.path.exists()
