"""`raygenome models` as a user types it."""

import json
import subprocess
import sys

import pytest
import torch
from support.builders import load_model
from support.kipoi_nets import kipoi_basset
from typer.testing import CliRunner

from raygenome.cli.models import app
from raygenome.errors import NoInput, OutputError
from raygenome.registry import registry
from raygenome.registry.model import Model

SMALL = {"window": 200, "channels": [16, 16, 16], "hidden": [32, 32], "targets": 4}
ROW = ["name", "architecture", "targets", "window", "weights_sha256", "source", "licence"]


def run(*arguments: str) -> str:
    """Run a command and return its output; exceptions are raised, since `main` prints them."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def rows() -> list[dict]:
    return [row for row in json.loads(run("list", "--json")) if row["name"] != "demo"]


def test_list(home):
    assert rows() == []
    spec = registry.init_model("small", "basset", 7, config=SMALL)
    assert [list(row) for row in rows()] == [ROW]
    assert rows()[0] == {
        "name": "small",
        "architecture": "basset",
        "targets": 4,
        "window": 200,
        "weights_sha256": spec.weights_sha256,
        "source": "random weights of seed 7",
        "licence": "none needed",
    }
    table = run("list")
    assert "small" in table
    assert "random weights of seed 7" in table


def test_list_prints_brackets_as_they_are(home):
    net, _ = load_model(made("a"))
    registry.save_model(
        home / "models" / "b",
        net,
        name="b",
        targets=Model.open(made("a")).targets,
        source="file [bold].pth",
    )
    assert "file [bold].pth" in run("list")


def made(name: str):
    if not (registry.models_dir() / name).exists():
        registry.init_model(name, "basset", 0, config=SMALL)
    return registry.resolve(name)


def test_show(home):
    directory = made("small")
    text = run("show", "small")
    assert "channels        ACGT\n" in text
    assert "categories      none 4\n" in text
    facts = json.loads(run("show", "small", "--json"))
    assert set(ROW) <= set(facts)
    assert facts["directory"] == str(directory)
    assert facts["config"]["window"] == 200
    assert json.loads(run("show", str(directory), "--json")) == facts
    with pytest.raises(NoInput, match="no model is called 'nope'"):
        run("show", "nope")


def test_init(home):
    row = json.loads(run("init", "r", "--architecture", "basset", "--seed", "3", "--json"))
    assert list(row) == ROW
    assert (row["targets"], row["window"]) == (164, 600)
    assert rows() == [row]
    with pytest.raises(OutputError, match="exists"):
        run("init", "r", "--architecture", "basset")
    assert run("init", "r", "--architecture", "basset", "--overwrite").startswith(
        "made r: basset, 164 targets, window 600 bp"
    )


@pytest.mark.slow
def test_import(home, tmp_path):
    torch.save(kipoi_basset().state_dict(), tmp_path / "w.pth")
    row = json.loads(run("import", "k", str(tmp_path / "w.pth"), "--json"))
    assert (row["name"], row["architecture"], row["licence"]) == ("k", "basset", "unknown")
    arguments = ("import", "k2", str(tmp_path / "w.pth"), "--architecture", "basset")
    assert run(*arguments).startswith("imported k2: basset")


def test_pull_of_an_unknown_name(home):
    with pytest.raises(Exception, match="no published weights are called 'sei'"):
        run("pull", "sei")


@pytest.mark.parametrize("command", ["list", "show", "pull", "import", "init"])
def test_help_has_an_example(command):
    assert f"Example: raygenome models {command}" in run(command, "--help")


@pytest.mark.slow
def test_looking_does_not_import_torch(home):
    made("small")
    code = (
        "import sys; from raygenome.cli.models import app;"
        "app(sys.argv[1:], standalone_mode=False);"
        "assert not {'torch', 'ray', 'pandas', 'pooch'} & set(sys.modules)"
    )
    for arguments in (["list"], ["list", "--json"], ["show", "small"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
