"""The command line: exit codes, one-line messages, help, JSON."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.builders import random_genome, random_records, write_fasta, write_model, write_vcf
from support.vcf_files import bgzf

import raygenome
from raygenome.cli import app, run

GENOME = random_genome(3, chr1=3000)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return a `score` command that works; the run goes to `run`."""
    vcf = write_vcf(tmp_path / "v.vcf", random_records(GENOME, 40))
    fasta = write_fasta(tmp_path / "genome.fa", GENOME)
    model = write_model(tmp_path / "stub")
    given = ["score", vcf, "--model", model, "--fasta", fasta, "--out", tmp_path / "run"]
    return [str(value) for value in [*given, "--workers", 0]]


def commands() -> list[list[str]]:
    """Return the words of every command there is."""

    def walk(command: object, words: list[str]) -> list[list[str]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [words]
        return [words] + [found for name in inner for found in walk(inner[name], [*words, name])]

    return walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: raygenome" in shown
    if words and not (len(words) == 1 and words[0] in ("models", "data")):
        assert re.search(
            rf"raygenome {' '.join(words)}\b", shown.split("Usage", 1)[1].split("\n", 1)[1]
        )


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"raygenome {raygenome.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["score"], ["submit"], ["data", "build"]], ids=" ".join)
def test_help_is_quick(words: list[str]) -> None:
    """CPU time is measured, because other programs on the machine do not change it."""
    line = [sys.executable, "-m", "raygenome", *words, "--help"]
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(line, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_is_for_people(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help fits 80 columns, shortens no line, and names no Python type."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"<(str|int|float|path|list\b.*)>|int range|\{\w+\}", shown)
    commands_listed = shown.partition("Commands:")[2]
    assert "..." not in commands_listed, "the first sentence of a command is too long"
    assert max(map(len, shown.splitlines())) <= 80


def test_a_shared_option_has_one_wording() -> None:
    """`--device`, `--json` and such read the same in every command that has them."""
    wordings: dict[str, set[str]] = {}
    for words in commands():
        command: Any = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.help:
                wordings.setdefault(max(parameter.opts, key=len), set()).add(parameter.help)
    for shared in ("--json", "--csv", "--resume", "--device", "--precision", "--strands", "--seed"):
        assert len(wordings[shared]) == 1, wordings[shared]
    assert len(wordings["--insecure"]) == 1


def test_the_names_of_the_library_are_listed() -> None:
    assert {"RaygenomeError", "evaluate", "score", "train"} <= set(dir(raygenome))
    assert "Any" not in dir(raygenome)
    for name in raygenome.__all__:
        assert getattr(raygenome, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = raygenome.nothing


@pytest.mark.slow
def test_summary_and_json(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"read +\d+ alleles\nscored +\d+ .*variants/s\nskipped +0\nseconds", shown)
    assert run([*arguments, "--overwrite", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["out"] == str(tmp_path / "run")
    assert shown["counts"]["read"] == shown["counts"]["scored"] > 0
    assert run([*arguments, "--dry-run"]) == 0
    assert "from a timed sample" in capsys.readouterr().out


@pytest.mark.slow
def test_an_error_of_the_user_is_one_line_and_a_code(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "html.vcf.gz").write_text("<html><body>404</body></html>")
    text = Path(arguments[1]).read_bytes()
    half = len(text) // 2
    # Cut between two blocks; other readers take this for a complete, shorter file.
    (tmp_path / "cut.vcf.gz").write_bytes(bgzf(text[:half], end=b""))
    stale = write_fasta(tmp_path / "stale.fa", GENOME)
    (tmp_path / "stale.fa.fai").write_text("chr1\t2900\t6\t60\t61\n")

    broken = write_model(tmp_path / "broken")
    weights = broken / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    def with_value(option: str, value: object) -> list[str]:
        changed = list(arguments)
        index = 1 if option == "VCF" else arguments.index(option) + 1
        changed[index] = str(value)
        return changed

    cases = [
        (2, ["score"]),
        (2, ["sing"]),
        (2, [*arguments, "--engine", "warp"]),
        (2, with_value("--workers", "many")),
        (65, with_value("VCF", tmp_path / "html.vcf.gz")),
        (65, with_value("VCF", tmp_path / "cut.vcf.gz")),
        (65, with_value("--fasta", stale)),
        (65, with_value("--model", broken)),
        (66, with_value("VCF", tmp_path / "no.vcf")),
        (66, with_value("--fasta", tmp_path / "no.fa")),
        (66, with_value("--model", "nobody")),
        (73, with_value("--out", arguments[1])),
        (66, ["top", str(tmp_path / "nothing")]),
    ]
    for code, words in cases:
        assert run(words) == code, words
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("raygenome: ")
        assert captured.err.count("\n") == 1, captured.err
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("*.parquet"))


def test_a_bug_keeps_its_traceback(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from raygenome.scoring import shard as scoring

    monkeypatch.setattr(scoring.Scorer, "score_shard", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(arguments)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.fa"), "a.fa: no such file"),
        (FileNotFoundError("Path does not exist 'b/a.fa'"), "Path does not exist 'b/a.fa'"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: FileNotFoundError,
    message: str,
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("raygenome.scoring.run.open_inputs", missing)
    assert run(arguments) == 66
    assert capsys.readouterr().err == f"raygenome: {message}\n"


@pytest.mark.slow
def test_standard_input(arguments: list[str], tmp_path: Path) -> None:
    text = Path(arguments[1]).read_bytes()
    command = [sys.executable, "-m", "raygenome", *arguments, "--json"]
    command[4] = "-"
    done = subprocess.run(command, input=text, capture_output=True, check=True)
    assert json.loads(done.stdout)["counts"]["scored"] > 0


def test_default_output_is_named_after_input_and_model(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = arguments.index("--out")
    assert run(arguments[:where] + arguments[where + 2 :]) == 0
    assert (tmp_path / "v.stub" / "_SUCCESS").exists()


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raygenome", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"raygenome {raygenome.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "redirected", "code"),
    [
        (["--help"], ">/dev/full", 74),
        (["models", "list"], ">/dev/full", 74),
        (["models", "list"], ">&-", 0),
        (["models", "list"], "2>&-", 0),
    ],
)
def test_streams_that_fail_or_are_closed(words: list[str], redirected: str, code: int) -> None:
    line = f"exec {sys.executable} -m raygenome {' '.join(words)} {redirected}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == (code == 74)
    assert "Traceback" not in done.stderr


def test_a_stream_needs_out(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = arguments.index("--out")
    nameless = arguments[:where] + arguments[where + 2 :]
    os.mkfifo(tmp_path / "pipe")
    for stream in ("-", str(tmp_path / "pipe")):
        nameless[1] = stream
        assert run(nameless) == 2
        assert "add --out DIR" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_workers_and_a_relative_directory(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments[arguments.index("--out") + 1] = "here"
    arguments[arguments.index("--workers") + 1] = "2"
    assert run([*arguments, "--shard-size", "10"]) == 0
    assert (tmp_path / "here" / "_SUCCESS").exists()
    assert run(["verify", "here"]) == 0
