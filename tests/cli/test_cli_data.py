"""`raygenome data` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.builders import random_genome, write_fasta
from support.peak_files import random_peaks, write_table
from support.published_files import one_hot, strand_pairs, write_mat
from typer.testing import CliRunner

from raygenome import cli
from raygenome.cli.data import app
from raygenome.cli.dataset_report import render
from raygenome.datasets.build import build
from raygenome.datasets.imports import import_files
from raygenome.datasets.packed import Dataset
from raygenome.datasets.show import describe

LENGTHS = {"chr1": 40_000, "chr2": 20_000, "chr3": 20_000}


def run(*arguments: object) -> str:
    """Run a command and return its output; exceptions are raised, since `main` prints them."""
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    """A genome and a table of peaks, as options."""
    fasta = write_fasta(tmp_path / "g.fa", random_genome(1, **LENGTHS))
    rng = np.random.default_rng(1)
    sets = {f"t{number}": random_peaks(rng, LENGTHS, 60) for number in range(2)}
    return ["--fasta", fasta, "--peaks", write_table(tmp_path, sets, t0="DNase-seq")]


@pytest.fixture
def mats(tmp_path: Path) -> list[Path]:
    """Train and test files of DeepSEA's form."""
    paths = []
    for split, form in (("train", "v7.3"), ("test", "v5")):
        windows, labels = strand_pairs(np.random.default_rng(len(split)), 6)
        arrays = {f"{split}xdata": one_hot(windows), f"{split}data": labels}
        paths.append(write_mat(tmp_path / f"{split}.mat", form, **arrays))
    return paths


@pytest.mark.parametrize("recipe", ["basset", "deepsea"])
def test_build(given, tmp_path, recipe):
    out = tmp_path / "out"
    text = run("build", "--recipe", recipe, *given, "--out", out, "--test", "chr3")
    found = Dataset.open(out)
    assert text == render(describe(found)) + "\n"
    assert found.manifest.recipe == recipe
    assert found.split("valid").n_rows == 0
    assert set(found.split("test").windows()["contig"].to_pylist()) == {"chr3"}


def test_build_hands_every_option_on(given, tmp_path):
    options = ["--valid", "chr2:1-9,000", "--valid", "chr2:12,001-", "--test", "chr3:1-15,000"]
    options += ["--exclude", "chr1:1-5,000", "--exclude", "chr3:18,000-"]
    options += ["--background", 7]  # the old name of --negatives
    command = ["build", "--recipe", "deepsea", *given, *options, "--seed", 5, "--keep", "any"]
    facts = json.loads(run(*command, "--out", tmp_path / "out", "--json"))
    assert facts == describe(Dataset.open(tmp_path / "out"))
    same = build(
        "deepsea",
        fasta=given[1],
        peaks=given[3],
        out=tmp_path / "same",
        valid=["chr2:1-9,000", "chr2:12,001-"],
        test=["chr3:1-15,000"],
        exclude=["chr1:1-5,000", "chr3:18,000-"],
        negatives=7,
        seed=5,
        keep="any",
    )
    assert {**facts, "path": None} == {**describe(same), "path": None}
    assert sum(split["negatives"] for split in facts["splits"].values()) == 7
    with pytest.raises(Exception, match="add --resume or --overwrite"):
        run(*command, "--out", tmp_path / "out")
    for again in ("--resume", "--overwrite"):
        facts = json.loads(run(*command, "--out", tmp_path / "out", again, "--json"))
        assert facts["digest"] == same.digest


def test_import(mats, tmp_path):
    text = run("import", *mats, "--out", tmp_path / "out")
    found = Dataset.open(tmp_path / "out")
    assert text == render(describe(found)) + "\n"
    assert [found.split(name).n_rows for name in ("train", "valid", "test")] == [6, 0, 6]
    with pytest.raises(Exception, match="add --resume or --overwrite"):
        run("import", *mats, "--out", tmp_path / "out")
    for again in ("--resume", "--overwrite"):
        facts = json.loads(run("import", *mats, "--out", tmp_path / "out", again, "--json"))
        assert facts == describe(found)


def test_show(mats, tmp_path):
    made = import_files(mats, out=tmp_path / "out")
    assert run("show", tmp_path / "out") == render(describe(made)) + "\n"
    assert json.loads(run("show", tmp_path / "out", "--json", "--verify")) == describe(made)
    rows = tmp_path / "out" / "train.rows"
    damaged = bytearray(rows.read_bytes())
    damaged[5] ^= 1
    rows.write_bytes(damaged)
    run("show", tmp_path / "out")
    with pytest.raises(Exception, match=r"train.rows is damaged: its sha256 is"):
        run("show", tmp_path / "out", "--verify")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "nope"], 66, "there is no dataset in nope: it has no dataset.json"),
        (["show"], 2, "Missing argument 'DIR'"),
        (["import", "s3://b/train.mat", "--out", "x"], 2, "a file to import is s3:/b/train.mat"),
        (
            ["build", "--recipe", "basset", "--out", "x", "--peaks", "s3://b/p", "--fasta", "f"],
            2,
            "--peaks is s3:/b/p, a URL",
        ),
        (["import", "nope.mat", "--out", "x"], 66, "cannot read nope.mat: No such file"),
        (["import", "--out", "x"], 2, "Missing argument"),
        (["import", "empty"], 2, "Missing option '--out'"),
        (["import", "empty", "--out", "x"], 65, "is not a known training file: it is empty"),
        (["import", "empty", "--out", "x", "--resume", "--overwrite"], 2, "contradict each other"),
        (["import", "train.mat", "--out", "empty"], 73, "empty is a file; --out needs a direc"),
        (["import", "train.mat", "train.mat", "--out", "x"], 65, "both hold the train split"),
        (["build", "--recipe", "sei"], 2, "'sei' is not one of"),
        (["build", "--recipe", "basset", "--out", "x", "--peaks", "p"], 2, "'--fasta'"),
    ],
)
def test_an_error_is_one_line(mats, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    assert cli.run(["data", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["build", "import", "show"])
def test_help_has_an_example(command):
    assert f"Example: raygenome data {command}" in run(command, "--help")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from raygenome.cli.data import app;"
        "app(['build', '--help'], standalone_mode=False);"
        "assert not {'numpy', 'h5py', 'pyarrow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_show_does_not_import_torch(mats, tmp_path):
    import_files(mats, out=tmp_path / "out")
    code = (
        "import sys; from raygenome.cli.data import app;"
        "app(sys.argv[1:], standalone_mode=False);"
        "assert not {'torch', 'ray', 'pandas', 'h5py', 'scipy'} & set(sys.modules)"
    )
    arguments = ["show", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_an_option_takes_several_places(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def built(*_arguments: object, **options: object) -> None:
        given.update(options)

    monkeypatch.setattr("raygenome.datasets.build.build", built)
    monkeypatch.setattr("raygenome.cli.data._report", lambda *_: None)
    words = ["--recipe", "basset", "--fasta", "a", "--peaks", "b", "--out", "c"]
    places = ["--test", "chr8", "chr9", "--exclude", "chrY", "--test", "chr10", "--valid", "chr7"]
    assert cli.run(["data", "build", *words, *places]) == 0
    assert given["test"] == ["chr8", "chr9", "chr10"]
    assert (given["valid"], given["exclude"]) == (["chr7"], ["chrY"])
    assert cli.run(["data", "build", *words, "stray"]) == 2
