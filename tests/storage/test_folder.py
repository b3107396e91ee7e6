"""Folders that a command makes: none takes another's, or somebody's own, for its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raygenome.datasets.manifest import read_manifest
from raygenome.datasets.writer import DatasetWriter
from raygenome.errors import NoInput, OutputError
from raygenome.genome.targets import Target
from raygenome.results.open_run import require_finished
from raygenome.results.run_dir import RunDir
from raygenome.results.run_dir import claim as claim_scoring
from raygenome.storage.folder import OutputFolder
from raygenome.storage.object_store import open_store
from raygenome.training.run_dir import TrainDir
from raygenome.training.run_dir import claim as claim_training

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
    with run.lock():
        run.clear()


def score(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Claim a folder as `raygenome score` does, and empty it as --overwrite does."""
    run = claim_scoring(path, resume=resume, overwrite=overwrite)
    with run.lock():
        run.clear()


def files_of(path: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def began(kind: type[OutputFolder | RunDir], path: Path) -> None:
    """Leave what an unfinished one of this kind has."""
    with kind(path).lock():
        (path / ".work" / "identity.json").write_text("{}")
        (path / "run.json").write_text("{}")
        (path / "log.jsonl").write_text("{}")
        (path / ".work" / "parts").mkdir()


@pytest.mark.parametrize("option", ["resume", "overwrite"])
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (TrainDir, write_dataset),
        (RunDir, write_dataset),
        (TrainDir, score),
        (RunDir, train),
        (OutputFolder, train),
    ],
)
def test_a_folder_of_another_kind_is_left_alone(
    tmp_path: Path, kind: type[OutputFolder | RunDir], command: Callable[..., None], option: str
) -> None:
    began(kind, tmp_path / "out")
    before = files_of(tmp_path)
    with pytest.raises(OutputError, match="is not empty and holds no"):
        command(tmp_path / "out", **{"resume": False, "overwrite": False, option: True})
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("command", [write_dataset, train])
def test_names_like_ours_do_not_make_a_folder_ours(
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
def test_what_died_at_once_is_free(tmp_path: Path, command: Callable[..., None]) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.temporary.mkdir(parents=True)
    (folder.work / "lock").touch()
    command(tmp_path / "out", resume=False, overwrite=False)


def test_a_training_run_is_no_unfinished_dataset(tmp_path: Path) -> None:
    run = TrainDir(tmp_path / "run")
    with run.lock(), pytest.raises(NoInput, match=r"there is no dataset in .*; make one"):
        read_manifest(open_store(run.path))


def test_a_training_run_is_no_unfinished_scoring_run(tmp_path: Path) -> None:
    began(TrainDir, tmp_path / "run")
    with pytest.raises(NoInput, match="holds no run of `raygenome score`"):
        require_finished(tmp_path / "run")
