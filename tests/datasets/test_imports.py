"""Importing published files: detection by content, merged splits, continued after a kill."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from support.paths import PYTHON_PATHS
from support.published_files import (
    WINDOW,
    basset_one_hot,
    deepsea_files,
    one_hot,
    strand_pairs,
    texts,
    write_h5,
    write_mat,
)

from raygenome.datasets import writer
from raygenome.datasets.imports import import_files
from raygenome.datasets.packed import Dataset, Split
from raygenome.errors import DataError, NoInput, OutputError, RaygenomeError, UsageError
from raygenome.models import published_targets
from raygenome.progress.bars import NoProgress
from raygenome.storage.files import file_sha256


def basset_file(path: Path, n: int = 4, targets: int = 2, **more: object) -> Path:
    rng = np.random.default_rng(n)
    windows = ["".join(rng.choice(list("ACGT"), 25)) for _ in range(n)]
    labels = rng.integers(0, 2, (n, targets))
    return write_h5(path, train_in=basset_one_hot(windows), train_out=labels, **more)


def letters(split: Split) -> list[str]:
    return texts(split.codes(slice(None)))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_deepsea_files_make_one_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PART_ROWS", 4)
    paths, truth = deepsea_files(tmp_path / "in", train=10, valid=3, test=5)
    made = import_files([paths[2], paths[0], paths[1]], out=tmp_path / "out")
    found = Dataset.open(tmp_path / "out")
    assert made.digest == found.digest
    found.verify()
    assert found.manifest.recipe == "deepsea-mat"
    assert found.window_size == WINDOW
    assert [t.name for t in found.targets] == [f"target_{i}" for i in range(6)]
    for split, windows in truth.items():
        assert letters(found.split(split)) == windows
        assert found.split(split).windows() is None
        assert found.manifest.counts[split] == {
            "rows_in_file": 2 * len(windows),
            "reverse_complement_half": True,
        }
    assert found.manifest.sources == [{"path": str(p), "sha256": file_sha256(p)} for p in paths]
    assert not (tmp_path / "out" / ".work").exists()
    import_files(paths, out=tmp_path / "sorted")
    assert content(tmp_path / "sorted") == content(tmp_path / "out")


def test_kinds_are_told_by_content(tmp_path):
    (train, valid), _ = deepsea_files(tmp_path / "in", train=3, valid=3)
    for kind, path in (("deepsea-mat", train), ("deepsea-mat", valid)):
        renamed = path.rename(path.with_suffix(".h5"))
        assert import_files([renamed], out=tmp_path / path.name).manifest.recipe == kind
    h5 = basset_file(tmp_path / "basset.mat")
    assert import_files([h5], out=tmp_path / "b").manifest.recipe == "basset-h5"


def test_published_target_names(tmp_path):
    windows, _ = strand_pairs(np.random.default_rng(0), 2)
    labels = np.eye(4, 919, dtype=np.uint8)
    path = write_mat(tmp_path / "x.mat", "v7.3", trainxdata=one_hot(windows), traindata=labels)
    found = import_files([path], out=tmp_path / "deepsea")
    assert found.targets == published_targets("deepsea")
    assert found.split("train").labels([0, 1, 2, 3]).tolist() == labels.tolist()

    published = published_targets("basset")
    cells = np.array([target.cell.encode() for target in published])
    path = basset_file(tmp_path / "x.h5", targets=164, target_labels=cells)
    assert import_files([path], out=tmp_path / "basset").targets == published
    path = basset_file(tmp_path / "y.h5", targets=164, target_labels=cells[::-1])
    assert import_files([path], out=tmp_path / "turned").targets[0].name == published[-1].cell


def test_basset_target_names(tmp_path):
    named = basset_file(tmp_path / "x.h5", target_labels=np.array([b"K562", b"K562"]))
    found = import_files([named], out=tmp_path / "named").targets
    assert [t.name for t in found] == ["K562", "K562_2"]
    bare = basset_file(tmp_path / "y.h5", targets=164)
    found = import_files([bare], out=tmp_path / "bare").targets
    assert [t.name for t in found] == [f"target_{i}" for i in range(164)]


def test_basset_sites(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x.h5"
    basset_file(path)
    with h5py.File(path, "a") as file:
        file["test_in"] = basset_one_hot(["".join(rng.choice(list("ACGT"), 25))] * 2)
        file["test_out"] = np.ones((2, 2))
        file["test_headers"] = np.array([b"chr1:100-125(+)", b"chr2:3-28(-)"])
    found = import_files([path], out=tmp_path / "out")
    assert found.split("test").windows().to_pydict() == {
        "contig": ["chr1", "chr2"],
        "start": [100, 3],
        "end": [125, 28],
        "negative": [False, False],
    }
    assert found.split("train").windows() is None


def refused(message: str, error: type[Exception], files: list, out: Path, **options: bool) -> None:
    with pytest.raises(error, match=message) as caught:
        import_files(files, out=out, **options)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused(tmp_path):
    out = tmp_path / "out"
    (train, _), _ = deepsea_files(tmp_path / "in", train=3, valid=3)
    h5 = basset_file(tmp_path / "x.h5")
    refused("no file to import", UsageError, [], out)
    refused("contradict each other", UsageError, [h5], out, resume=True, overwrite=True)
    refused("cannot read .*nope: No such file", NoInput, [tmp_path / "nope"], out)
    refused("cannot read .*: Is a directory", NoInput, [tmp_path], out)
    refused("train.mat and .*train.mat both hold the train split", DataError, [train, train], out)
    refused("is basset-h5 and .* is deepsea-mat", DataError, [h5, train], out)

    labels = np.zeros((4, 5), dtype=np.uint8)
    other = tmp_path / "other.mat"
    savemat(other, {"testxdata": one_hot(["A" * WINDOW] * 4), "testdata": labels})
    refused("6 targets, test of .*other.mat has 30 bp and 5;", DataError, [train, other], out)
    savemat(other, {"testxdata": one_hot(["A" * WINDOW] * 4)[:, :, :20], "testdata": labels})
    refused("windows of 30 bp and 6 .* 20 bp and 5;", DataError, [train, other], out)
    assert not out.exists()


def test_files_of_no_known_kind_are_refused(tmp_path):
    path, out = tmp_path / "x", tmp_path / "out"
    for text, message in (
        (b"", "is empty"),
        (b"chr1\t5\t9\n" * 200, r"starts with b'chr1\\t5\\t9'"),
    ):
        path.write_bytes(text)
        refused(f"not a known training file: it {message}.*DeepSEA's .mat", DataError, [path], out)
    write_h5(path, foo=np.zeros((2, 3)))
    refused("holds foo 2x3; it needs trainxdata .* or train_in and", DataError, [path], out)
    basset_file(path, trainxdata=np.zeros((2, 3)))
    refused("holds both DeepSEA's and Basset's", DataError, [path], out)
    (train,), _ = deepsea_files(tmp_path / "in", train=3)
    train.write_bytes(train.read_bytes()[:1000])
    refused("is damaged or incomplete .*truncated", DataError, [train], out)
    assert not out.exists()


def test_different_target_labels_are_refused(tmp_path):
    one = basset_file(tmp_path / "x.h5", target_labels=np.array([b"a", b"b"]))
    with h5py.File(tmp_path / "y.h5", "w") as file, h5py.File(one) as like:
        file["test_in"], file["test_out"] = like["train_in"][()], like["train_out"][()]
        file["target_labels"] = np.array([b"a", b"c"])
    refused("different target_labels", DataError, [one, tmp_path / "y.h5"], tmp_path / "out")


class Kill(NoProgress):
    """Ends the process, like an out-of-memory kill, after a number of committed parts."""

    def __init__(self, after: int) -> None:
        self.left = after

    def begin(self, what: str, total: int, done: int = 0, *, unit: str = "") -> None:
        self.counts = what != "checksums"

    def update(self, done: int, note: str = "") -> None:
        import os
        import signal

        self.left -= self.counts
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PART_ROWS", 4)
    paths, _ = deepsea_files(tmp_path / "in", train=10, valid=6)
    import_files(paths, out=tmp_path / "whole")
    code = textwrap.dedent("""
        import sys
        from raygenome.datasets import imports, writer
        from test_imports import Kill
        writer.PART_ROWS = 4
        out, after, *files = sys.argv[1:]
        imports.import_files(files, out=out, resume=True, progress=Kill(int(after)))
    """)
    out = tmp_path / "killed"
    path = os.pathsep.join(map(str, [Path(__file__).parent, *PYTHON_PATHS]))
    environment = {**os.environ, "PYTHONPATH": path}
    for parts in (2, 4):
        arguments = [str(out), "2", *map(str, paths)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment)
        assert done.returncode == -9
        assert len(list((out / ".work" / "parts").glob("*.json"))) == parts
    refused("add --resume or --overwrite", OutputError, paths, out)
    phases: list[tuple[str, int, int]] = []

    class Told(NoProgress):
        def begin(self, what: str, total: int, done: int = 0, *, unit: str = "") -> None:
            phases.append((what, total, done))

    import_files(paths, out=out, resume=True, progress=Told())
    assert phases[1:] == [("importing train", 10, 10), ("importing valid", 6, 4)]
    assert content(out) == content(tmp_path / "whole")
    again = import_files(paths, out=out, resume=True)
    assert again.digest == Dataset.open(tmp_path / "whole").digest


def test_resume_wants_the_same_files(tmp_path):
    paths, _ = deepsea_files(tmp_path / "in", train=5)
    out = tmp_path / "out"
    import_files(paths, out=out)
    other, _ = deepsea_files(tmp_path / "other", train=6)
    refused("started with another set of files", DataError, other, out, resume=True)
    assert import_files(other, out=out, overwrite=True).split("train").n_rows == 6


def test_a_fault_late_in_a_file_leaves_what_was_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PART_ROWS", 50)
    windows, labels = strand_pairs(np.random.default_rng(0), 120)
    windows[120 + 110] = windows[120]
    path = write_mat(tmp_path / "x", "v7.3", trainxdata=one_hot(windows), traindata=labels)
    refused("row 230 .from 0. is not the reverse complement", DataError, [path], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize("form", ["v5", "v7.3", "basset"])
def test_damage_anywhere_is_one_error(tmp_path, form):
    """The libraries raise all kinds of exceptions for damaged files; each becomes one line."""
    rng = np.random.default_rng(5)
    path = tmp_path / "x"
    if form == "basset":
        headers = np.array([b"chr1:%d-%d(+)" % (50 * i, 50 * i + 25) for i in range(4)])
        basset_file(path, train_headers=headers, target_labels=np.array([b"a", b"b"]))
    else:
        windows, labels = strand_pairs(rng, 4)
        write_mat(path, form, trainxdata=one_hot(windows), traindata=labels)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    refusals: list[str] = []
    for number in range(20):
        damaged = whole.copy()
        reach = len(whole) if number % 2 else min(len(whole), 3000)
        damaged[rng.integers(0, reach, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            import_files([path], out=tmp_path / "out", overwrite=True)
        except RaygenomeError as error:
            refusals.append(str(error))
    assert len(refusals) > 4
    assert not any("\n" in refusal for refusal in refusals)
