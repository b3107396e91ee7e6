"""Outputs in folders: no command overwrites the output of another command or a user's folder."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.object_store import make_bucket, s3_server, use

from raygenome.datasets.manifest import read_manifest
from raygenome.datasets.writer import DATASET, DatasetWriter
from raygenome.errors import DataError, NoInput, OutputError
from raygenome.genome.targets import Target
from raygenome.results.open_run import require_finished
from raygenome.results.run_dir import RunDir
from raygenome.results.run_dir import claim as claim_scoring
from raygenome.storage.object_store import open_store
from raygenome.storage.store import Kind, LocalStore, Store
from raygenome.training.run_dir import TRAINING_RUN
from raygenome.training.run_dir import claim as claim_training
from raygenome.training.run_dir import clear as clear_training

TARGETS = [Target(0, "t", "", "", "", "")]


def write_dataset(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Make a dataset of one row."""
    options = {"resume": resume, "overwrite": overwrite}
    with DatasetWriter(path, window_size=4, targets=TARGETS, identity={}, **options) as to:
        to.write("train", 0, np.zeros((1, 4), np.uint8), np.ones((1, 1), np.uint8))
        to.finish(recipe="test", sources=[], options={}, counts={})


def train(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Claim a folder as `raygenome train` does, and empty it as --fresh does."""
    run = claim_training(path, resume=resume, fresh=overwrite)
    with run.lock(TRAINING_RUN):
        clear_training(run)


def score(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Claim a folder as `raygenome score` does, and empty it as --overwrite does."""
    run = claim_scoring(path, resume=resume, overwrite=overwrite)
    with run.lock():
        run.clear()


def files_of(path: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def leave_unfinished(kind: Kind, path: Path) -> None:
    """Make the files of an unfinished output of this kind."""
    with LocalStore(path).lock(kind):
        (path / ".work" / "identity.json").write_text("{}")
        (path / "run.json").write_text("{}")
        (path / "log.jsonl").write_text("{}")
        (path / ".work" / "parts").mkdir()


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (TRAINING_RUN, write_dataset),
        (RunDir.KIND, write_dataset),
        (TRAINING_RUN, score),
        (RunDir.KIND, train),
        (Kind("output", "", ""), train),
    ],
)
def test_a_folder_of_another_kind_is_left_alone(
    tmp_path: Path, kind: Kind, command: Callable[..., None], option: str
) -> None:
    leave_unfinished(kind, tmp_path / "out")
    before = files_of(tmp_path)
    with pytest.raises(OutputError, match="is not empty and holds no"):
        command(tmp_path / "out", **{"resume": False, "overwrite": False, option: True})
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("command", [write_dataset, train])
def test_a_folder_with_names_like_ours_is_left_alone(
    tmp_path: Path, command: Callable[..., None]
) -> None:
    for name in ("log.jsonl", "run.json", "model/model.json", ".work/checkpoints/mine.pt"):
        file = tmp_path / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(OutputError, match="is not empty and holds no"):
        command(tmp_path / "out", resume=False, overwrite=True)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("command", [write_dataset, train, score])
def test_leftovers_of_a_process_that_died_at_once_are_no_obstacle(
    tmp_path: Path, command: Callable[..., None]
) -> None:
    folder = LocalStore(tmp_path / "out")
    (folder.temp_dir / "half").touch()
    (folder.path / ".work" / "lock").touch()
    command(tmp_path / "out", resume=False, overwrite=False)


def test_a_training_run_is_no_unfinished_dataset(tmp_path: Path) -> None:
    run = LocalStore(tmp_path / "run")
    with (
        run.lock(TRAINING_RUN),
        pytest.raises(NoInput, match=r"there is no dataset in .*; make one"),
    ):
        read_manifest(run)


def test_a_training_run_is_no_unfinished_scoring_run(tmp_path: Path) -> None:
    leave_unfinished(TRAINING_RUN, tmp_path / "run")
    with pytest.raises(NoInput, match="holds no run of `raygenome score`"):
        require_finished(tmp_path / "run")


# The same operations in a folder and in an object store

THING = Kind("thing", finished="thing.json", started=".work/identity.json")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    place: str | Path = tmp_path / "out"
    if request.param == "s3":
        use(monkeypatch, request.getfixturevalue("server"))
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        make_bucket(bucket)
        place = f"s3://{bucket}/out"
    store = open_store(place)
    yield store
    store.close()


def model_folder(store: Store, text: str) -> Path:
    """Return a temporary folder of two files."""
    folder = store.temp_dir / uuid.uuid4().hex
    folder.mkdir()
    for name in ("model.json", "weights"):
        (folder / name).write_text(f"{name} {text}")
    return folder


def test_a_writer_commits_and_a_second_one_resumes(store: Store) -> None:
    store.claim(THING, resume=False, overwrite=False)
    with store.lock(THING):
        store.publish_json({"seed": 1}, ".work/identity.json")
        temporary = store.temporary_file(".work/parts/0.rows")
        temporary.write_bytes(b"rows")
        file = {"path": ".work/parts/0.rows", **store.publish(temporary, ".work/parts/0.rows")}
        store.publish_json(file, ".work/parts/0.json")
    second = open_store(store.absolute)
    with pytest.raises(OutputError, match="holds an unfinished thing; add --resume or --overwrite"):
        second.claim(THING, resume=False, overwrite=False)
    with pytest.raises(OutputError, match="is not empty and holds no dataset"):
        second.claim(DATASET, resume=False, overwrite=True)
    second.claim(THING, resume=True, overwrite=False)
    with second.lock(THING):
        assert set(second.sizes(".work/parts")) == {".work/parts/0.json", ".work/parts/0.rows"}
        receipt = second.read_json(".work/parts/0.json", do="")
        assert receipt == file
        assert second.is_whole(receipt)
        assert second.fetch(".work/parts/0.rows").read_bytes() == b"rows"
        assert not second.is_whole({**receipt, "bytes": 5})
        assert not second.is_whole({**receipt, "path": ".work/parts/1.rows"})
        second.publish_copy(".work/parts/0.rows", "rows")
        second.publish_json({}, "thing.json")
        second.remove_working()
    second.close()
    assert store.listdir() == {"rows", "thing.json"}
    with pytest.raises(OutputError, match="is not empty and holds no thing"):
        store.claim(THING, resume=True, overwrite=False)  # a thing has no proof


def test_a_damaged_json_file_is_named(store: Store) -> None:
    assert store.read_json("x.json", do="fix it") is None
    store.publish_text("{", "x.json")
    with pytest.raises(DataError, match=r"/x\.json is damaged .*; fix it$"):
        store.read_json("x.json", do="fix it")


def test_a_folder_replaces_an_earlier_one(store: Store) -> None:
    for text in ("one", "two"):
        folder = model_folder(store, text)
        store.publish_folder(folder, "model", last="model.json")
        assert not folder.exists()
        assert store.sizes("model") == {"model/model.json": 14, "model/weights": 11}
        assert store.read("model/weights") == f"weights {text}".encode()


def test_a_crash_while_a_folder_is_replaced_costs_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead(Exception):  # noqa: N818
        pass

    rename = Path.rename

    def rename_and_die(path: Path, target: Path) -> None:
        rename(path, target)
        raise Dead

    store = LocalStore(tmp_path / "out")
    with store.lock(THING):
        store.publish_folder(model_folder(store, "one"), "model", last="model.json")
        second = model_folder(store, "two")
        monkeypatch.setattr(Path, "rename", rename_and_die)
        with pytest.raises(Dead):
            store.publish_folder(second, "model", last="model.json")
        monkeypatch.undo()
    assert not store.exists("model/weights")
    with store.lock(THING):
        assert store.read("model/weights") == b"weights one"
    assert {path.name for path in store.path.iterdir()} == {"model", ".work"}
