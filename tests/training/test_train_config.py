"""Recipes hold the published numbers; any error in a recipe is one line."""

import math
from pathlib import Path
from typing import Any

import pytest
from support.paths import CONFIGS
from support.small_training import recipe, write_recipe

from raygenome.errors import DataError, NoInput, RaygenomeError, UsageError
from raygenome.models import build
from raygenome.training.config import TrainConfig, load_config, make_config


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_config_is_a_recipe_of_a_net_that_can_be(name: str) -> None:
    import torch

    found = load_config(CONFIGS / f"{name}.yaml")
    assert make_config(found.plain()) == found
    with torch.device("meta"):
        build(found.architecture, found.net)


def test_there_are_the_configs() -> None:
    there = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert there == {"basset", "basset-fast", "basset-small", "deepsea", "deepsea-fast", "demo"}


def test_deepsea_is_as_published() -> None:
    config = load_config(CONFIGS / "deepsea.yaml")
    optimizer = config.optimizer
    assert (config.architecture, config.net) == ("deepsea", {})
    assert (config.batch_size, config.epoch_samples, config.loss) == (16, 110_000, "mean")
    assert (optimizer.name, optimizer.lr) == ("sgd", 1.0)
    assert (optimizer.momentum, optimizer.dampening) == (0.9, 0.9)
    assert optimizer.weight_decay == 2 * 5e-7
    assert (config.schedule.name, config.schedule.decay, config.schedule.warmup) == (
        "inverse",
        8e-7,
        0,
    )
    assert config.max_norm == 0.9
    assert config.l1 is not None
    assert (config.l1.weight, config.l1.on) == (1e-8, "hidden")
    assert (config.strands, config.shift, config.precision) == ("both", 0, "fp32")
    assert (config.select.by, config.select.patience) == ("loss", 300)
    assert build("deepsea").config["dropouts"] == [0.2, 0.2, 0.5]


def test_basset_is_as_published() -> None:
    config = load_config(CONFIGS / "basset.yaml")
    optimizer = config.optimizer
    assert (config.architecture, config.net) == ("basset", {})
    assert (config.batch_size, config.epoch_samples, config.loss) == (128, None, "sum")
    assert (optimizer.name, optimizer.lr, optimizer.alpha) == ("rmsprop", 0.002, 0.98)
    assert (optimizer.eps, optimizer.weight_decay) == (1e-8, 0)
    assert (config.schedule.name, config.max_norm, config.l1) == ("constant", 7, None)
    assert (config.strands, config.shift, config.precision) == ("forward", 0, "fp32")
    assert (config.select.by, config.select.patience) == ("auroc", 12)
    assert build("basset").config["dropout"] == 0.3


@pytest.mark.parametrize("name", ["basset", "deepsea"])
def test_the_fast_recipes_are_modern_and_of_the_same_net(name: str) -> None:
    fast, plain = (load_config(CONFIGS / f"{each}.yaml") for each in (f"{name}-fast", name))
    assert (fast.architecture, fast.net) == (plain.architecture, plain.net)
    assert fast.batch_size > plain.batch_size
    assert fast.precision == "bf16"
    assert fast.schedule.warmup > 0


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


PLAIN = """
architecture: basset
epochs: 3
batch_size: 16
optimizer: {name: sgd, lr: 1}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8),
        ("1E-8", 1e-8),
        ("1.5e-8", 1.5e-8),
        ("2.", 2.0),
        (".5", 0.5),
        ("5", 5.0),
        ("+1e3", 1000.0),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    path = written(tmp_path / "r.yaml", PLAIN + f"l1: {{weight: {text}, on: logits}}\n")
    found = load_config(path).l1
    assert found is not None
    assert found.weight == value
    assert isinstance(found.weight, float)


@pytest.mark.parametrize("text", ["on: hidden", "'on': hidden", "on : logits"])
def test_on_is_a_word(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "r.yaml", PLAIN + f"l1:\n  weight: 1\n  {text}\n")
    found = load_config(path).l1
    assert found is not None
    assert found.on == text.split(": ")[1]


def test_what_is_left_out_has_a_default_and_a_recipe_does_not_change() -> None:
    found = make_config(
        {"architecture": "basset", "epochs": 1, "batch_size": 2, "optimizer": {"lr": 0.1}}
    )
    assert (found.loss, found.strands, found.precision) == ("mean", "forward", "fp32")
    assert (found.seed, found.shift, found.min_positives) == (0, 0, 1)
    with pytest.raises(ValueError, match="frozen"):
        found.epochs = 2  # type: ignore[misc]


def test_plain_values_make_the_same_recipe_again() -> None:
    found = make_config(recipe(l1={"weight": 1e-8, "on": "logits"}, max_norm=7))
    assert make_config(found.plain()) == found
    assert isinstance(found, TrainConfig)


SGD = {"name": "sgd", "lr": 0.1}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"epoch_samples": 0}, "epoch_samples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"shift": -1}, "shift is -1"),
        ({"net": 3}, "net is 3"),
        ({"loss": "median"}, "loss is 'median'"),
        ({"strands": "reverse"}, "strands is 'reverse'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"max_norm": 0}, "max_norm is 0"),
        ({"min_positives": 0}, "min_positives is 0"),
        ({"optimizer": SGD | {"name": "adam"}}, "optimizer.name is 'adam'"),
        ({"optimizer": SGD | {"lr": 0}}, "optimizer.lr is 0"),
        ({"optimizer": SGD | {"lr": "1e-3"}}, "optimizer.lr is '1e-3'"),
        ({"optimizer": SGD | {"momentum": 1}}, "optimizer.momentum is 1"),
        ({"optimizer": SGD | {"betas": [0.9]}}, "optimizer.betas"),
        ({"optimizer": SGD | {"weight_decay": -1}}, "optimizer.weight_decay is -1"),
        ({"optimizer": SGD | {"lr": math.nan}}, "optimizer.lr is nan"),
        ({"schedule": {"name": "linear"}}, "schedule.name is 'linear'"),
        ({"schedule": {"warmup": 1}}, "schedule.warmup is 1"),
        ({"schedule": {"final": 2}}, "schedule.final is 2"),
        ({"l1": {"weight": 0}}, "l1.weight is 0"),
        ({"l1": {"weight": 1, "on": "weights"}}, "l1.on is 'weights'"),
        ({"select": {"by": "accuracy"}}, "select.by is 'accuracy'"),
        ({"select": {"patience": 0}}, "select.patience is 0"),
        ({"learning_rate": 1}, "unknown key learning_rate"),
        ({"optimizer": SGD | {"beta": 1}}, "unknown key optimizer.beta"),
        ({"optimizer": {"name": "sgd"}}, "optimizer.lr is missing"),
        ({"optimizer": None}, "optimizer is missing"),
        ({"architecture": None}, "architecture is missing"),
        ({"epochs": None}, "epochs is missing"),
        ({"batch_size": None}, "batch_size is missing"),
        ({"net": {"hidden": {1, 2}}}, "plain values only"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(recipe(**changes))
    assert str(caught.value).startswith(field) or field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_a_wrong_value_is_named_too(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml", epochs=0)
    with pytest.raises(DataError, match=f"^{path}: epochs is 0: .*greater than or equal to 1$"):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "\t- x", "!!python/object:os.system {}", "a: *b", "a: 2020-13-45"],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "r.yaml", text)
    with pytest.raises(DataError, match=r"is not YAML: ") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00epochs")
    with pytest.raises(DataError, match="is not YAML: "):
        load_config(path)


@pytest.mark.parametrize("text", ["", "- a\n- b", "7", "basset"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="holds no training config; it needs at least architecture"):
        load_config(written(tmp_path / "r.yaml", text))


@pytest.mark.parametrize("word", ["trueish", "falsehood", "1.5abc", "1e-8x"])
def test_words_that_begin_as_others_are_words(tmp_path: Path, word: str) -> None:
    """A pattern without an end anchor would take 1e-8x for a number, and fail on it."""
    path = written(tmp_path / "r.yaml", PLAIN.replace("lr: 1", f"lr: {word}"))
    with pytest.raises(DataError, match=rf"optimizer\.lr is '{word}': "):
        load_config(path)


def test_no_file_is_no_input(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(NoInput, match=f"cannot read the config {path}: ") as caught:
            load_config(path)
        assert isinstance(caught.value, RaygenomeError)
