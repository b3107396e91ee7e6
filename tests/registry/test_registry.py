"""Model directories are read as they were written; damaged ones are refused with one line."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import load_model

from raygenome.errors import DataError, NoInput, OutputError, StorageError, UsageError
from raygenome.genome.targets import Target
from raygenome.models import build, default_targets
from raygenome.registry import registry
from raygenome.registry.model import Model
from raygenome.registry.modeldir import SPEC_FILE, TARGETS_FILE, WEIGHTS_FILE
from raygenome.registry.saving import clean_up

SMALL = {"window": 200, "channels": [16, 16, 16], "hidden": [32, 32], "targets": 4}


@pytest.fixture
def model(home: Path) -> Path:
    """A small model called `small` in the registry."""
    registry.init_model("small", "basset", 7, config=SMALL)
    return registry.resolve("small")


def edit_spec(model: Path, **changes) -> None:
    spec = json.loads((model / SPEC_FILE).read_text())
    spec.update(changes)
    (model / SPEC_FILE).write_text(json.dumps({k: v for k, v in spec.items() if v is not ...}))


def edit_weights(model: Path, edit) -> None:
    """Change the weights and let model.json agree with the new file."""
    weights = load_file(model / WEIGHTS_FILE)
    edit(weights)
    save_file(weights, model / WEIGHTS_FILE)
    edit_spec(model, weights_sha256=hashlib.sha256((model / WEIGHTS_FILE).read_bytes()).hexdigest())


def test_init_then_load(home, model):
    net, spec = load_model(model)
    assert model == home / "models" / "small"
    assert sorted(p.name for p in model.iterdir()) == [SPEC_FILE, TARGETS_FILE, WEIGHTS_FILE]
    assert (spec.name, spec.architecture, spec.targets) == ("small", "basset", 4)
    assert (spec.channels, spec.n_value, spec.window, spec.centre) == ("ACGT", 0.25, 200, 99)
    assert spec.config["channels"] == [16, 16, 16]
    assert spec.source == "random weights of seed 7"
    assert Model.open(model).spec == spec
    assert not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.requires_grad and p.device.type == "cpu" for p in net.parameters())
    with torch.inference_mode():
        assert net(torch.rand(2, 4, 200)).shape == (2, 4)
    assert [t.name for t in Model.open(model).targets] == [f"target_{i}" for i in range(4)]


def test_saved_weights_are_the_nets(tmp_path):
    torch.manual_seed(1)
    net = build("deepsea", {"window": 200, "channels": (8, 8, 8), "hidden": 10, "targets": 3})
    saved = registry.save_model(
        tmp_path / "m", net, name="m", targets=default_targets("deepsea", 3), source="here"
    )
    again, spec = load_model(tmp_path / "m")
    assert spec == saved
    assert (spec.channels, spec.n_value, spec.licence) == ("AGCT", 0.0, "unknown")
    x = torch.rand(2, 4, 200)
    with torch.inference_mode():
        assert torch.equal(again(x), net.eval()(x))
    # on disk a fully connected layer is the published matrix, channel-major
    assert load_file(tmp_path / "m" / WEIGHTS_FILE)["layers.full1.weight"].is_contiguous()


def test_same_seed_same_bytes(home):
    digests = [
        registry.init_model(name, "basset", seed, config=SMALL).weights_sha256
        for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    ]
    assert digests[0] == digests[1] != digests[2]


def test_init_leaves_the_global_random_state(home):
    state = torch.random.get_rng_state()
    registry.init_model("a", "basset", 0, config=SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_init_with_own_targets(tmp_path):
    targets = [Target(0, "x", "c", "x", "", "TF"), Target(1, "y", "c", "y", "", "TF")]
    config = {key: value for key, value in SMALL.items() if key != "targets"}
    spec = registry.init_model(
        "m", "basset", 0, config=config, targets=targets, directory=tmp_path / "m"
    )
    assert spec.targets == 2
    assert Model.open(tmp_path / "m").targets == targets


def test_published_basset_gets_its_published_targets(home):
    registry.init_model("b", "basset", 0)
    assert Model.open("b").targets[0].name == "8988T_DNase"


def test_nothing_is_overwritten_unasked(home, model):
    before = Model.open(model).spec
    with pytest.raises(
        OutputError, match=r"model directory .*small exists; choose another name"
    ) as caught:
        registry.init_model("small", "basset", 8, config=SMALL)
    assert caught.value.exit_code == 73
    assert Model.open(model).spec == before
    registry.init_model("small", "basset", 8, config=SMALL, overwrite=True)
    assert Model.open(model).spec.source == "random weights of seed 8"
    assert os.listdir(home / "models") == ["small"]


def test_another_directory_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists and is not a model directory"):
        registry.init_model(
            "m", "basset", 0, config=SMALL, directory=tmp_path / "thesis", overwrite=True
        )
    assert (tmp_path / "thesis" / "draft.txt").exists()


def test_a_failed_save_leaves_nothing(home, monkeypatch):
    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("raygenome.registry.saving.write_targets", full_disk)
    with pytest.raises(Exception, match="No space left on device") as caught:
        registry.init_model("small", "basset", 7, config=SMALL)
    assert caught.value.exit_code == 74
    assert os.listdir(home / "models") == []


def test_a_save_that_fails_at_the_end_leaves_the_model_before(home, model, monkeypatch):
    before, replace = Model.open(model).spec, os.replace

    def failing(path, target):
        if Path(path).suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StorageError, match="Input/output error"):
        registry.init_model("small", "basset", 8, config=SMALL, overwrite=True)
    assert Model.open(model).spec == before
    assert os.listdir(home / "models") == ["small"]


@pytest.mark.parametrize("moved_aside", [True, False])
def test_what_a_killed_save_leaves_is_cleaned_up(home, model, moved_aside):
    before = Model.open(model).spec
    (model.parent / ".small.ab.tmp").mkdir()
    (model.parent / ".small.cd.old").mkdir()
    if moved_aside:
        (model.parent / ".small.cd.old").rmdir()
        model.rename(model.parent / ".small.cd.old")
    clean_up(model)
    assert Model.open(model).spec == before
    assert os.listdir(home / "models") == ["small"]


def test_a_home_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYGENOME_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot make a directory beside .*Not a directory"):
        registry.init_model("small", "basset", 7, config=SMALL)


@pytest.mark.parametrize("name", ["", "Big", "-x", ".x", "a" * 65, "a b", "a/b", "a\n", "é"])
def test_names_that_cannot_be(home, name):
    with pytest.raises(UsageError, match="cannot be a model's name; use up to 64 of a-z"):
        registry.init_model(name, "basset", 0, config=SMALL)


def test_bundled_names_are_taken(home, tmp_path, monkeypatch):
    bundled = tmp_path / "bundled"
    registry.init_model("demo", "basset", 0, config=SMALL, directory=bundled / "demo")
    monkeypatch.setattr(registry, "bundled_dir", lambda: bundled)
    assert registry.resolve("demo") == bundled / "demo"
    assert [spec.name for spec in registry.list_models()] == ["demo"]
    with pytest.raises(OutputError, match="model 'demo' comes with raygenome; choose another"):
        registry.init_model("demo", "basset", 0, config=SMALL, overwrite=True)


def test_resolve(home, model, tmp_path, monkeypatch):
    assert registry.resolve("small") == model
    assert registry.resolve(str(model)) == model
    assert registry.resolve(model) == model
    monkeypatch.chdir(tmp_path)
    registry.init_model("other", "basset", 0, config=SMALL, directory=tmp_path / "here")
    assert registry.resolve("here") == Path("here")  # a model directory where we are
    (tmp_path / "small").mkdir()  # a directory that is not a model does not hide a name
    assert registry.resolve("small") == model
    with pytest.raises(NoInput, match=r"\./small is not a model directory: it has no model.json"):
        registry.resolve("./small")


def test_a_training_run_is_told_from_its_model(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.init_model("model", "basset", 0, config=SMALL, directory=tmp_path / "run" / "model")
    for given in ("run", "./run", Path("run")):
        with pytest.raises(NoInput, match=r"the model of that training run is run/model$"):
            registry.resolve(given)
    assert registry.resolve("run/model") == Path("run/model")


def test_unknown_models(home, model):
    with pytest.raises(NoInput, match=r"no model is called 'nope'; there are: .*small; get") as e:
        registry.resolve("nope")
    assert "raygenome models pull" in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(NoInput, match=r"no model is called '\.\.'"):
        registry.resolve("..")


def test_list_leaves_out_what_is_broken(home, model, caplog):
    registry.init_model("broken", "basset", 0, config=SMALL)
    (home / "models" / "broken" / SPEC_FILE).write_text("{")
    (home / "models" / ".small.tmp").mkdir()
    (home / "models" / "renamed").symlink_to(model)
    with caplog.at_level(logging.WARNING):
        names = [spec.name for spec in registry.list_models()]
    assert [name for name in names if name != "demo"] == ["renamed", "small"]
    assert "broken" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has model format 2; this raygenome reads format 1"),
        ({"format": ...}, "does not describe a model: it has no format number"),
        ({"window": ...}, "has no 'window', which a model needs"),
        ({"window": "200"}, "window is '200', of the wrong type"),
        ({"targets": True}, "targets is True, of the wrong type"),
        ({"colour": "red"}, "has 'colour', which is not known in format 1"),
        ({"channels": "ACGU"}, "channels is 'ACGU'; it must be a permutation of ACGT"),
        ({"centre": 200}, "window 200, centre 200 and targets 4 cannot be"),
        ({"window": 300}, "window is 300, but 200 in config"),
        ({"architecture": "enformer"}, "model.json: no architecture is called 'enformer'"),
        ({"weights_sha256": "0" * 64}, f"has sha256 [0-9a-f]{{64}}; model.json says {'0' * 64}"),
    ],
)
def test_contradictory_specs(model, changes, message):
    edit_spec(model, **changes)
    with pytest.raises(DataError, match=message) as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_spec_that_is_not_json(model):
    (model / SPEC_FILE).write_text("[]")
    with pytest.raises(DataError, match="does not describe a model"):
        Model.open(model)
    (model / SPEC_FILE).write_bytes(b"\xff{")
    with pytest.raises(DataError, match="is not JSON"):
        Model.open(model)
    (model / SPEC_FILE).unlink()
    with pytest.raises(NoInput, match=r"is not a model directory: it has no model.json"):
        Model.open(model)


def first_weight(value):
    return lambda w: w["layers.conv1.weight"].view(-1)[:1].fill_(value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("layers.full2.bias"), "no weights called layers.full2.bias"),
        (lambda w: w.update(more=torch.zeros(1)), "weights called more, which this net does not"),
        (
            lambda w: w.update({"layers.output.bias": torch.zeros(5)}),
            r"layers.output.bias has shape \(5,\); it needs \(4,\)",
        ),
        (
            lambda w: w.update({"layers.output.bias": torch.zeros(4, dtype=torch.float16)}),
            "layers.output.bias is torch.float16; it needs to be torch.float32",
        ),
        (first_weight(float("nan")), "layers.conv1.weight holds values that are not finite"),
        (first_weight(float("-inf")), "layers.conv1.weight holds values that are not finite"),
        (
            lambda w: w["layers.conv2_norm.running_var"].neg_(),
            "layers.conv2_norm.running_var holds negative variances",
        ),
    ],
)
def test_weights_that_do_not_fit(model, edit, message):
    edit_weights(model, edit)
    with pytest.raises(DataError, match=message) as caught:
        load_model(model)
    assert WEIGHTS_FILE in str(caught.value)


def test_damaged_weights(model):
    path = model / WEIGHTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="the weights are damaged or belong to another model"):
        load_model(model)
    edit_spec(model, weights_sha256=hashlib.sha256(whole[:-1]).hexdigest())
    with pytest.raises(DataError, match="is not a whole safetensors file"):
        load_model(model)
    path.unlink()
    with pytest.raises(NoInput, match=r"cannot read .*weights.safetensors"):
        load_model(model)


def test_targets_of_another_number(model):
    lines = (model / TARGETS_FILE).read_text().splitlines(keepends=True)
    (model / TARGETS_FILE).write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="has 3 targets; the model has 4 outputs"):
        Model.open(model)


def test_targets_that_cannot_be_saved(tmp_path):
    net = build("basset", {**SMALL, "targets": 2})
    for names, message in [
        (["a", "A"], "'a' and 'A' need names that differ"),
        (["a", "pos"], "cannot be called 'pos'"),
        (["a"], "1 targets given for a net of 2 outputs"),
    ]:
        targets = [Target(i, name, "", "", "", "") for i, name in enumerate(names)]
        with pytest.raises(DataError, match=message):
            registry.save_model(tmp_path / "m", net, name="m", targets=targets, source="")
        assert not (tmp_path / "m").exists()


def test_home_without_the_variable(monkeypatch):
    monkeypatch.delenv("RAYGENOME_HOME")
    assert registry.home().name == "raygenome"
