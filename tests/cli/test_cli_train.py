"""`raygenome train` as a user types it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.small_training import recipe, weights_of, write_dataset, write_recipe

from raygenome.cli import run
from raygenome.cluster.compute import Compute
from raygenome.training import run as training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cli") / "data")


@pytest.fixture
def words(data: Path, tmp_path: Path) -> list[str]:
    """Return a `train` command that works; the run goes to `run`."""
    given = ["train", write_recipe(tmp_path / "r.yaml"), "--data", data, "--out", tmp_path / "run"]
    return [str(word) for word in [*given, "--workers", 0]]


@pytest.mark.slow
def test_the_summary(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    out, err = capsys.readouterr()
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    first, second, third = out.splitlines()
    assert re.fullmatch(r"trained +3 epochs, 30 steps, 600 samples in [\d.]+ s", first)
    best = document["best"]
    assert re.fullmatch(rf"best +epoch {best['epoch']}: valid .*", second)
    for name in ("loss", "auroc", "auprc"):
        assert f"{name} {best[f'valid_{name}']:.4f}" in second
    assert str(tmp_path / "run" / "model") in third
    assert err == ""


@pytest.mark.slow
def test_json_is_run_json(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"steps", "epochs", "seconds", "config", "data_digest"} <= set(shown)
    for key in ("architecture", "epochs", "batch_size", "seed"):
        assert shown["config"][key] == recipe()[key]


@pytest.mark.slow
def test_an_existing_run_needs_resume_or_fresh(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    weights = weights_of(tmp_path / "run")
    first = capsys.readouterr().out
    assert run(words) == 73
    assert "add --resume or --fresh" in one_line(capsys)
    assert run([*words, "--resume"]) == 0
    assert capsys.readouterr().out == first
    write_recipe(tmp_path / "r.yaml", seed=77)
    assert run([*words, "--resume"]) == 65
    assert "was started with seed: 5, the config now has 77" in one_line(capsys)
    assert weights_of(tmp_path / "run") == weights
    assert run([*words, "--fresh"]) == 0
    assert weights_of(tmp_path / "run") != weights
    assert run([*words, "--fresh", "--resume"]) == 2


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("raygenome: ")
    return err


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"epochs": 0}, 65, "r.yaml: epochs is 0: "),
        ({"lr": 3}, 65, "r.yaml: unknown key lr"),
        ({"optimizer": None}, 65, "r.yaml: optimizer is missing"),
        (
            {"architecture": "cnn"},
            2,
            "no architecture is called 'cnn'; there are: basset, beluga, deepsea",
        ),
        ({"batch_size": 1000}, 65, "fewer samples than a batch of 1000; lower batch_size"),
        ({"min_positives": 500}, 65, "targets have fewer than 500 positive training windows"),
    ],
)
def test_a_wrong_recipe_is_one_line(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: int,
    message: str,
) -> None:
    write_recipe(tmp_path / "r.yaml", **changes)
    assert run(words) == code
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--data", "nowhere", 66, "there is no dataset in nowhere"),
        ("--out", "https://b/run", 2, "https://b/run is neither a path nor"),
        ("--workers", "few", 2, "--workers is few; it must be auto, 0"),
        ("--workers", "21", 2, "at most 20 workers can share a batch of 20"),
        ("--device", "tpu", 2, "'tpu' is not one of"),
    ],
)
def test_a_wrong_option_is_one_line(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    code: int,
    message: str,
) -> None:
    assert run([*words, option, value]) == code
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_there_is_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").unlink()
    assert run(words) == 66
    assert "cannot read the config" in one_line(capsys)


@pytest.mark.slow
def test_auto_is_this_process_where_there_is_no_gpu(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    seen: list[object] = []
    plain = training.wanted_workers

    def noted(compute: Compute, *rest: Any) -> tuple[int, int]:
        seen.append(compute.workers)
        return plain(compute, *rest)

    monkeypatch.setattr(training, "wanted_workers", noted)
    before = "ray" in sys.modules
    assert run([*words[:-2], "--device", "cpu"]) == 0
    assert seen == ["auto"]
    assert ("ray" in sys.modules) == before


@pytest.mark.slow
def test_a_model_of_a_run_scores_variants(words: list[str], tmp_path: Path) -> None:
    from support.builders import random_genome, random_records, write_fasta, write_vcf

    genome = random_genome(3, chr1=2000)
    vcf = write_vcf(tmp_path / "v.vcf", random_records(genome, 20))
    fasta = write_fasta(tmp_path / "genome.fa", genome)
    assert run(words) == 0
    model = tmp_path / "run" / "model"
    given = ["score", vcf, "--model", model, "--fasta", fasta, "--out", tmp_path / "scores"]
    assert run([str(word) for word in [*given, "--workers", 0]]) == 0
    assert (tmp_path / "scores" / "_SUCCESS").exists()
