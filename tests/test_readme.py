"""What the documents say is there: every command, every option, every file."""

import re

import pytest
import typer
from support.paths import ROOT

from raygenome.cli import app
from raygenome.scoring.allele_filter import SKIP_REASONS

README = (ROOT / "README.md").read_text()


def options_of(words: list[str]) -> set[str]:
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts}


def command_lines() -> list[str]:
    """Return the raygenome command lines in README's indented and fenced blocks."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?raygenome ", line)]


def test_there_are_commands_to_check() -> None:
    assert len(command_lines()) >= 8


@pytest.mark.parametrize("line", command_lines())
def test_each_command_line_exists(line: str) -> None:
    outer, _, inner = line.partition(" -- ")  # `submit` has another command behind it
    for words in (outer.split()[1:], inner.split()):
        check_words(words, line)


def check_words(words: list[str], line: str) -> None:
    command = typer.main.get_command(app)
    path: list[str] = []
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is None:
            break
        assert word in inner, f"raygenome has no command {word!r}"
        command = inner[word]
        path.append(word)
    given = {word.split("=")[0] for word in words if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)}
    assert given <= options_of(path), line


def test_every_skip_reason_is_explained() -> None:
    for reason in SKIP_REASONS:
        assert f"`{reason}`" in README


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(re.findall(r"make (\w+)", text)) <= targets
