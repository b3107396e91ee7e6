"""Outputs in folders: no command takes the output of another, or a user's folder, for its own."""

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
from raygenome.storage.store import Kind, LocalStore
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
    """Leave what an unfinished output of this kind has."""
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
