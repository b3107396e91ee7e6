"""`raygenome evaluate` as a user types it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from support.builders import STUB
from support.labelled_data import ROWS, TARGETS, write_dataset
from typer.testing import CliRunner

from raygenome.cli.evaluate import register
from raygenome.datasets.packed import pack_labels
from raygenome.datasets.writer import DatasetWriter
from raygenome.errors import OutputError, UsageError
from raygenome.genome.targets import Target
from raygenome.registry.registry import init_model

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments: str) -> str:
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)  # so that it is one command of several, as in the program
    register(app)
    result = CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def command(tmp_path: Path, home: Path) -> list[str]:
    init_model("stub", "basset", 0, config=STUB, targets=TARGETS)
    data = write_dataset(tmp_path / "data")
    out = tmp_path / "scores.parquet"
    return ["--model", "stub", "--data", str(data), "--out", str(out), "--device", "cpu"]


def test_table(command: list[str], tmp_path: Path) -> None:
    lines = run(*command, "--among", "negatives").splitlines()
    assert lines[0].split() == ["target", "positives", "negatives", "AUROC", "AUPRC"]
    assert [line.split()[0] for line in lines[1:6]] == ["a", "b", "never", "rare", "odd"]
    assert lines[3].split()[3:] == ["-", "-"]
    assert [line.split()[:3] for line in lines[9:13]] == [
        ["DNase", "1", "1"],
        ["TF", "3", "2"],
        ["none", "1", "1"],
        ["all", "5", "4"],
    ]
    assert lines[-2] == f"{ROWS} windows of test, negatives among negatives, both strands"
    assert lines[-1] == f"wrote {tmp_path / 'scores.parquet'}"
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == len(TARGETS)


def test_a_url_for_the_table_is_refused(command: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--out is s3:/b/x, a URL; give a path"):
        run(*command, "--out", "s3://b/x")


def test_json(command: list[str]) -> None:
    found = json.loads(run(*command, "--json", "--strands", "forward"))
    assert (found["among"], found["strands"], found["rows"]) == ("all", "forward", ROWS)
    assert [row["name"] for row in found["targets"]] == [target.name for target in TARGETS]
    assert found["targets"][2]["auroc"] is None
    assert found["summary"][-1]["category"] == "all"
    with pytest.raises(OutputError, match="--overwrite"):
        run(*command)
    run(*command, "--overwrite")


def test_many_targets_are_not_listed(tmp_path: Path, home: Path) -> None:
    import numpy as np

    targets = [Target(i, f"t{i}", "", "", "", "TF") for i in range(21)]
    init_model("many", "basset", 0, config={**STUB, "targets": 21}, targets=targets)
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "d", window_size=40, targets=targets, identity={}) as writer:
        codes = rng.integers(0, 4, (20, 40)).astype(np.uint8)
        writer.write("test", 0, codes, pack_labels(rng.integers(0, 2, (20, 21), dtype=np.uint8)))
        writer.finish(recipe="test", sources=[], options={}, counts={})
    out = str(tmp_path / "s.parquet")
    text = run("--model", "many", "--data", str(tmp_path / "d"), "--out", out)
    assert "t3" not in text
    assert text.splitlines()[2].startswith("TF")


def test_help_has_an_example() -> None:
    assert "Example: raygenome evaluate --model" in run("--help")
