"""Kipoi checkpoints of the nets in all variants, and files that are not checkpoints."""

import hashlib
import os
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from support.builders import load_model
from support.kipoi_nets import kipoi_basset, kipoi_beluga, kipoi_deepsea
from torch import nn

from raygenome.errors import DataError, NoInput, OutputError, UsageError
from raygenome.models import CHECKPOINT_LAYERS, PUBLISHED, build
from raygenome.registry import checkpoints
from raygenome.registry.checkpoints import architecture_of, import_checkpoint, net_of


@pytest.fixture(scope="module")
def kipoi() -> nn.Sequential:
    """Return a Kipoi Basset with random weights and statistics."""
    torch.manual_seed(4)
    net = kipoi_basset()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.fixture
def state(kipoi) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in kipoi.state_dict().items()}


def squeezed(state, form: str):
    """The convolutions with their width along the last axis, as 3-D, or as they are (k, 1)."""
    if form == "(k, 1)":
        return state
    convs = [key for key, value in state.items() if value.dim() == 4]
    reshaped = {key: state[key].squeeze(3) for key in convs}
    if form == "(1, k)":
        reshaped = {key: value.unsqueeze(2) for key, value in reshaped.items()}
    return {**state, **reshaped}


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "1.", "2.", "module.", "model."])
@pytest.mark.parametrize("form", ["(k, 1)", "(1, k)", "3-D"])
def test_every_guise_gives_the_same_net(kipoi, state, prefix, form):
    guise = {prefix + key: value for key, value in squeezed(state, form).items()}
    assert architecture_of(guise) == "basset"
    net = net_of(guise, "basset", source="here")
    x = torch.rand(2, 4, 600)
    with torch.inference_mode():
        expected = kipoi.double()(x.double().unsqueeze(3))
        found = net.double()(x.double()).sigmoid()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    kipoi.float()


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["1.", "2."])
def test_deepsea_as_published(tmp_path, home, prefix):
    torch.manual_seed(5)
    kipoi = kipoi_deepsea().eval()
    file = tmp_path / "deepsea_predict.pth"
    torch.save({prefix + key: value for key, value in kipoi.state_dict().items()}, file)
    spec = import_checkpoint("deepsea", file)
    assert (spec.architecture, spec.channels, spec.n_value) == ("deepsea", "AGCT", 0.0)
    assert (spec.window, spec.centre, spec.targets) == (1000, 499, 919)
    net, _ = load_model("deepsea")
    x = torch.rand(2, 4, 1000)
    with torch.inference_mode():
        torch.testing.assert_close(net(x).sigmoid(), kipoi(x.unsqueeze(2)), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_import(tmp_path, home, kipoi, state, zipped):
    file = tmp_path / "some weights.pth"
    torch.save(OrderedDict(state), file, _use_new_zipfile_serialization=zipped)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    spec = import_checkpoint("mine", file)
    assert (spec.name, spec.architecture, spec.targets) == ("mine", "basset", 164)
    assert (spec.source, spec.licence) == (f"some weights.pth (md5 {md5})", "unknown")
    net, loaded = load_model("mine")
    assert loaded == spec
    x = torch.rand(2, 4, 600)
    with torch.inference_mode():
        torch.testing.assert_close(net(x).sigmoid(), kipoi(x.unsqueeze(3)), rtol=0, atol=1e-6)
    stored = load_file(home / "models" / "mine" / "weights.safetensors")
    # the published matrix, (out, channels * length), lies unchanged in the file
    assert torch.equal(stored["layers.full1.weight"].flatten(), state["13.1.weight"].flatten())


def test_import_knows_published_files_by_md5(tmp_path, home, state, monkeypatch):
    file = tmp_path / "renamed.pth"
    torch.save(state, file)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(PUBLISHED, "basset", PUBLISHED["basset"]._replace(md5=md5))
    spec = import_checkpoint("basset", file, "basset")
    assert spec.licence == "MIT"
    assert spec.source == f"{PUBLISHED['basset'].url} (md5 {md5})"


def test_old_and_other_number_types(state):
    """No counts, float64 or float16 weights, and a state dict inside a training checkpoint."""
    bare = {k: v.double() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    net = net_of(bare, "basset", source="here")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert net.layers.conv1_norm.num_batches_tracked == 0
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    assert net_of(half, "basset", source="here").layers.conv1.weight.dtype == torch.float32


def test_state_dict_inside_a_training_checkpoint(tmp_path, state):
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pth")
    assert checkpoints.read_state(tmp_path / "c.pth").keys() == state.keys()


def changed(state, **changes):
    """`state` with keys (dots written as _) dropped where None, else replaced."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return {k: v for k, v in {**state, **changes}.items() if v is not None}


def nan_at_the_end(shape):
    tensor = torch.zeros(shape)
    tensor.view(-1)[-1] = float("nan")
    return tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"9__running_var": None}, "as basset: no weights called 9.running_var, which this net"),
        ({"22__weight": torch.zeros(2)}, "weights called 22.weight, which this net does not have"),
        (
            {"4__weight": torch.zeros(200, 300, 9, 1)},
            r"4.weight has shape \(200, 300, 9, 1\); it needs \(200, 300, 1, 11\) or "
            r"\(200, 300, 11, 1\)",
        ),
        # the right number of values in an order that is not the published one
        ({"0__weight": torch.zeros(300, 19, 4)}, r"0.weight has shape \(300, 19, 4\); it needs"),
        ({"21__1__bias": torch.zeros(919)}, r"21.1.bias has shape \(919,\); it needs \(164,\)"),
        (
            {"17__1__bias": torch.zeros(1000, dtype=torch.int64)},
            "17.1.bias is torch.int64; it needs floating-point numbers",
        ),
        ({"13__1__weight": nan_at_the_end((1000, 2000))}, "13.1.weight holds values that are not"),
        (
            {"1__bias": torch.full((300,), 1e300, dtype=torch.float64)},
            "1.bias holds values that are not finite",
        ),
        ({"1__running_var": -torch.ones(300)}, "1.running_var holds negative variances"),
        ({"0__weight": None}, "no key is called 0.weight, alone or after one of 1., 2., module."),
    ],
)
def test_states_that_do_not_fit(state, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        net_of(changed(state, **changes), "basset", source="weights.pth")
    assert "\n" not in str(caught.value)
    assert "weights.pth" in str(caught.value)


def test_the_other_architecture_is_refused(tmp_path, home, state):
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(DataError, match=r"b.pth as deepsea: no weights called 12.1.weight"):
        import_checkpoint("x", tmp_path / "b.pth", "deepsea")
    with pytest.raises(
        UsageError, match="checkpoints of 'sei' are not known; only of: basset, beluga, deepsea"
    ):
        import_checkpoint("x", tmp_path / "b.pth", "sei")
    assert not (home / "models").exists()


class Code:
    """Runs a command if it is unpickled without protection."""

    def __reduce__(self):
        return os.system, ("touch ran-it",)


SMALL_STATE = {"0.weight": torch.arange(5000.0)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0.weight": Code()}, r"would have to run code to load \(posix.system\), which is refus"),
        (nn.Linear(2, 2), r"would have to run code to load \(torch.nn.modules.linear.Linear\)"),
        ([torch.zeros(1)], "holds a list; it needs a state dict"),
        ({}, "holds a dict; it needs a state dict"),
        ({"epoch": 3}, "'epoch' is a int; a state dict holds tensors by name"),
        ({0: torch.zeros(1)}, "0 is a Tensor; a state dict holds tensors by name"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_are_no_state_dict(tmp_path, monkeypatch, content, message, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=message) as caught:
        import_checkpoint("x", tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran-it").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a whole PyTorch checkpoint; download it again"),
        (b"hello\n" * 100, "is not a whole PyTorch checkpoint"),
        (bytes(range(256)) * 10, "is not a whole PyTorch checkpoint"),
        (b"\n\n <!DOCTYPE html><html>Sign in</html>", "is a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a Git LFS pointer"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, data, message):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        import_checkpoint("x", tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(
        caught.value
    )  # torch's message advises to trust the file; ours does not


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [1, 10, 100, 2000, 10_000, -1])
def test_truncated_files(tmp_path, zipped, kept):
    path = tmp_path / "x.pth"
    torch.save(SMALL_STATE, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="is not a whole PyTorch checkpoint; download it again"):
        import_checkpoint("x", path)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_keys_of_beluga(monkeypatch, prefix):
    sizes = {"channels": (6, 5, 4), "hidden": 7, "targets": 3}
    monkeypatch.setattr(checkpoints, "build", lambda name: build(name, {"window": 400, **sizes}))
    torch.manual_seed(5)
    kipoi = kipoi_beluga(length=6, **sizes).eval()
    state = {prefix + key: value for key, value in kipoi.state_dict().items()}
    assert architecture_of(state) == "beluga"
    net = net_of(state, "beluga", source="here")
    x = torch.rand(2, 4, 400)
    with torch.inference_mode():
        expected = kipoi.double()(x.double().unsqueeze(2))
        found = net.double()(x.double()).sigmoid()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_no_file(tmp_path):
    with pytest.raises(NoInput, match=r"cannot read the checkpoint .*x.pth: No such file"):
        import_checkpoint("x", tmp_path / "x.pth")
    with pytest.raises(NoInput, match=r"cannot read the checkpoint .*: Is a directory"):
        import_checkpoint("x", tmp_path)


@pytest.mark.slow
def test_a_model_that_exists_is_refused_before_reading(tmp_path, home, state):
    torch.save(state, tmp_path / "b.pth")
    import_checkpoint("b", tmp_path / "b.pth")
    with pytest.raises(OutputError, match="exists; choose another name"):
        import_checkpoint("b", tmp_path / "nope.pth")
    import_checkpoint("b", tmp_path / "b.pth", overwrite=True)


def test_published_files():
    assert set(PUBLISHED) == {"basset", "beluga", "deepsea", "deepsea-predict"}
    for file in PUBLISHED.values():
        assert file.architecture in CHECKPOINT_LAYERS
        assert file.url.startswith("https://")
        assert len(bytes.fromhex(file.md5)) == 16
