"""README and docs are correct: every command runs or at least exists, and every file exists."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from support.builders import STUB, random_genome, random_records, write_fasta, write_vcf
from support.paths import CONFIGS, JOBS, ROOT
from support.peak_files import random_peaks, write_table
from support.published_files import one_hot, strand_pairs, write_mat
from support.small_training import write_recipe
from support.vcf_files import bgzf

from raygenome.cli import app, run
from raygenome.genome.targets import Target
from raygenome.registry.registry import init_model
from raygenome.scoring.allele_filter import SKIP_REASONS

pytestmark = pytest.mark.usefixtures("one_thread")

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "jobs/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]

#: Commands that are not run but only parsed, by a pattern, with the reason.
ONLY_PARSED = {
    r"^raygenome (submit|jobs) ": "needs a Ray cluster",
    r" --address ": "needs a Ray cluster",
    r"^raygenome models pull ": "needs the network",
    r"^raygenome models import ": "needs a published checkpoint",
    r"^raygenome doctor ": "its exit code depends on the machine",
    r"^raygenome score - ": "reads standard input",
}
#: A number that is too large for the genome of this test.
SMALLER = {"--negatives 100000": "--negatives 10"}

#: A line that runs raygenome, perhaps at the end of a pipe.
RAYGENOME = re.compile(r"^(?:bcftools [^|]+\| )?raygenome ")

LENGTHS = {"chr1": 40_000, "chr7": 15_000, "chr8": 15_000, "chr9": 15_000, "chr22": 8_000}
TARGETS = ["GM12878_CTCF", "K562_CTCF", "K562_DNase", "HepG2_NRF1", "HepG2_DNase"]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block of a document."""
    yield from re.findall(r"```([a-z]*)\n(.*?)```", text_of(name), flags=re.DOTALL)


def command_lines(name: str) -> list[str]:
    """Return the raygenome commands in the fenced blocks of a document."""
    lines = "\n".join(text for _, text in blocks(name)).replace("\\\n", " ").splitlines()
    return [line[line.index("raygenome ") :] for line in lines if RAYGENOME.match(line)]


def only_parsed(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in ONLY_PARSED)


ALL_LINES = [(name, line) for name in DOCUMENTS for line in command_lines(name)]


def test_there_are_commands_to_check() -> None:
    assert len(command_lines("README.md")) >= 12
    assert len(ALL_LINES) >= 30
    for pattern in ONLY_PARSED:
        assert any(re.search(pattern, line) for _, line in ALL_LINES), f"{pattern} is not needed"
    assert sum(not only_parsed(line) for _, line in ALL_LINES) >= 20


@pytest.mark.parametrize(("name", "line"), ALL_LINES)
def test_each_command_and_option_exists(name: str, line: str) -> None:
    outer, _, inner = line.partition(" -- ")  # `submit` has another command after it
    for words in (shlex.split(outer)[1:], shlex.split(inner)):
        check_words(words, line)


def check_words(words: list[str], line: str) -> None:
    command = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is None:
            break
        assert word in inner, f"raygenome has no command {word!r}"
        command = inner[word]
    known = {name for parameter in command.params for name in parameter.opts}
    given = {word.split("=")[0] for word in words if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)}
    assert given <= known, line


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every input that the documents name, all of them tiny."""
    folder = tmp_path_factory.mktemp("inputs")
    genome = random_genome(7, **LENGTHS)
    write_fasta(folder / "hg19.fa", genome)
    write_fasta(folder / "hg38.fa", genome)
    vcf = write_vcf(folder / "variants.vcf", random_records(genome, 100))
    (folder / "variants.vcf.gz").write_bytes(bgzf(vcf.read_bytes()))
    rng = np.random.default_rng(7)
    write_table(folder, {name: random_peaks(rng, LENGTHS, 60) for name in TARGETS[:2]})
    (folder / "configs").mkdir()
    net = {"channels": [4], "kernels": [9], "pools": [37], "hidden": [4]}
    write_recipe(folder / "configs" / "basset-fast.yaml", net=net, epochs=1, batch_size=10)
    for split in ("train", "valid", "test"):
        windows, labels = strand_pairs(rng, 4)
        arrays = {f"{split}xdata": one_hot(windows), f"{split}data": labels}
        write_mat(folder / f"{split}.mat", "v5", **arrays)
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder of a reader, who has the inputs and a model called deepsea."""
    here = tmp_path / "reader"
    shutil.copytree(inputs, here)
    monkeypatch.chdir(here)
    targets = [Target(i, name, *name.split("_"), "", "TF") for i, name in enumerate(TARGETS)]
    init_model("deepsea", "basset", 0, config=STUB, targets=targets)
    return here


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if command_lines(name)])
def test_the_commands_of_a_document_run_in_order(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name != "README.md":  # the pages begin where README ends, with a run in `scores`
        words = "score variants.vcf.gz --model deepsea --fasta hg19.fa --out scores"
        assert run(words.split()) == 0
    for language, text in blocks(name):
        if language == "python":
            exec(compile(text, name, "exec"), {})
        for line in text.replace("\\\n", " ").splitlines():
            if not RAYGENOME.match(line):
                continue
            line = line[line.index("raygenome ") :]
            if not only_parsed(line):
                for large, small in SMALLER.items():
                    line = line.replace(large, small)
                assert run(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"


@pytest.mark.slow
def test_the_table_in_readme_is_what_top_prints(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Apart from the last digits, which depend on the processor."""
    (shown,) = [text for _, text in blocks("README.md") if text.startswith("rank ")]
    assert run(["demo"]) == 0
    capsys.readouterr()
    assert run(["top", "demo/run", "-n", "4"]) == 0
    printed = capsys.readouterr().out
    assert len(shown.splitlines()) == len(printed.splitlines()) == 5
    for words, found in zip(shown.splitlines(), printed.splitlines(), strict=True):
        for word, other in zip(words.split(), found.split(), strict=True):
            if "." in word:
                assert float(word) == pytest.approx(float(other), abs=1e-4)
            else:
                assert word == other


@pytest.fixture
def picture() -> Any:
    """Return docs/picture.py as a module."""
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs" / "picture.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_its_command_draws(picture: Any) -> None:
    assert (ROOT / "docs" / "window.svg").read_text(encoding="utf-8") == picture.draw()


def test_the_picture_shows_what_a_snv_changes(picture: Any) -> None:
    """The ranges that are drawn, against convolutions and pools of random numbers."""
    import torch

    torch.manual_seed(0)
    ref = torch.rand(1, 64, picture.WINDOW)
    alt = ref.clone()
    alt[..., picture.SNV] += 1000
    for (name, values, first, last), (_, kernel, stride) in zip(
        picture.changed_ranges()[1:], picture.LAYERS, strict=True
    ):
        if name.startswith("convolution"):
            weight = torch.rand(64, 64, kernel)
            ref, alt = (torch.nn.functional.conv1d(x, weight) for x in (ref, alt))
        else:
            ref, alt = (torch.nn.functional.max_pool1d(x, kernel, stride) for x in (ref, alt))
        changed = (ref != alt).any(dim=1)[0].nonzero().flatten()
        assert ref.shape[-1] == values
        assert (int(changed[0]), int(changed[-1])) == (first, last)


def test_every_skip_reason_is_explained() -> None:
    for reason in SKIP_REASONS:
        assert f"| `{reason}` |" in text_of("docs/results.md")


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for name in DOCUMENTS:
        assert set(re.findall(r"^ *(?:`)?make (\w+)", text_of(name), flags=re.MULTILINE)) <= targets


def test_what_is_linked_or_named_exists() -> None:
    for name in DOCUMENTS:
        text = text_of(name)
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / name).parent.joinpath(link).exists(), f"{name} links {link}"
        for path in re.findall(r"\b((?:jobs|configs|docs|tests)/[\w./-]*\w)", text):
            at_root = (ROOT / path).exists() or (ROOT / path).with_suffix("").exists()
            assert at_root, f"{name} names {path}"
    for path in re.findall(
        r"`((?:clusters/)?[\w-]+\.(?:sh|yaml|json))`", text_of("jobs/README.md")
    ):
        assert (JOBS / path).exists()
    for path in re.findall(r"`([\w-]+\.yaml)`", text_of("docs/training.md")):
        assert (CONFIGS / path).exists()
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", text_of("docs/architecture.md")):
        at_home = (ROOT / path).exists() or (ROOT / "raygenome" / path).exists()
        assert at_home, f"docs/architecture.md names {path}"


def test_every_package_is_in_the_tree() -> None:
    tree = next(text for _, text in blocks("docs/architecture.md") if "errors" in text)
    packages = {path.parent.name for path in (ROOT / "raygenome").glob("*/__init__.py")}
    named = set(re.findall(r"(?:^|  )([a-z]+)  ", tree, flags=re.MULTILINE))
    assert packages <= named, packages - named
    assert named - {"errors"} <= packages, named - packages


def test_every_bench_command_exists() -> None:
    from bench.program import COMMANDS

    named = [
        command
        for name in DOCUMENTS
        for command in re.findall(r"python jobs/bench ([a-z][a-z-]+)", text_of(name))
    ]
    assert len(named) >= 5
    assert set(named) <= set(COMMANDS)
    speed = text_of("docs/speed.md")
    listed = re.findall(r"^\| `([a-z-]+)` \|", speed, flags=re.MULTILINE)
    assert set(listed) <= set(COMMANDS)
