"""The two nets, compared with their published definitions."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.kipoi_nets import kipoi_twin
from torch import nn

from raygenome.errors import UsageError
from raygenome.genome.sequence import one_hot_table
from raygenome.models import ARCHITECTURES, build, net_class
from raygenome.registry.weights import randomise

SMALL = {
    "basset": {"window": 200, "channels": (16, 12, 8), "hidden": (20, 24), "targets": 4},
    "beluga": {"window": 400, "channels": (16, 12, 8), "hidden": 20, "targets": 6},
    "deepsea": {"window": 200, "channels": (16, 12, 8), "hidden": 20, "targets": 5},
}


def windows(net, count: int, seed: int = 0) -> torch.Tensor:
    """Random one-hot windows with some N, (N, 4, L) as a view of (N, L, 4)."""
    codes = np.random.default_rng(seed).integers(0, 5, (count, net.config["window"]))
    table = one_hot_table(*net.ENCODING)
    return torch.from_numpy(table[codes]).transpose(1, 2)


def small(architecture: str, seed: int = 0, **config):
    net = build(architecture, {**SMALL[architecture], **config})
    randomise(net, seed)
    return net.eval()


@pytest.mark.parametrize(
    ("architecture", "parameters", "lengths"),
    [
        ("deepsea", 52_843_119, [1000, 993, 248, 241, 60, 53, 1, 1]),
        (
            "beluga",
            149_536_251,
            [2000, 1993, 1986, 496, 489, 482, 120, 113, 106, 1, 1],
        ),
        ("basset", 4_135_064, [600, 582, 194, 184, 46, 40, 10, 1, 1, 1]),
    ],
)
def test_published_sizes(architecture, parameters, lengths):
    with torch.device("meta"):
        net = build(architecture).eval()
        x = torch.zeros(1, 4, 1, lengths[0])
    assert sum(p.numel() for p in net.parameters()) == parameters
    seen = [lengths[0]]
    for layer in net.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            seen.append(x.shape[-1])
    assert seen == lengths
    assert x.shape[1] == net.config["targets"]


@pytest.mark.parametrize("architecture", ["basset", "beluga", "deepsea"])
@pytest.mark.parametrize("seed", [0, 1])
def test_small_nets_equal_the_kipoi_ones_in_float64(architecture, seed):
    net = small(architecture, seed).double()
    x = windows(net, 5, seed).double()
    with torch.inference_mode():
        torch.testing.assert_close(net(x).sigmoid(), kipoi_twin(net)(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "architecture", ["basset", pytest.param("deepsea", marks=pytest.mark.slow)]
)
def test_published_nets_equal_the_kipoi_ones(architecture):
    net = build(architecture)
    randomise(net, 3)
    net.eval()
    x = windows(net, 2)
    with torch.inference_mode():
        expected = kipoi_twin(net)(x.double())
        found = net(x).sigmoid()
        exact = net.double()(x.double()).sigmoid()
    assert found.dtype == torch.float32
    assert expected.std(0).max() > 1e-3  # the windows do matter
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


def test_forward_gives_logits_and_takes_any_memory_layout():
    net = small("basset")
    x = windows(net, 3)
    with torch.inference_mode():
        viewed, copied = net(x), net(x.contiguous())
    assert viewed.shape == (3, 4)
    assert viewed.min() < 0  # no probability
    torch.testing.assert_close(viewed, copied, rtol=0, atol=0)


def test_forward_leaves_its_input_alone():
    net = small("deepsea")
    x = windows(net, 2).contiguous()
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


def test_threshold_is_not_relu():
    net = small("deepsea")
    threshold = net.layers.conv1_threshold
    x = torch.tensor([-1.0, 0.0, 1e-9, 1e-6, 2.0])
    assert threshold(x).tolist() == torch.tensor([1e-6, 1e-6, 1e-9, 1e-6, 2.0]).tolist()
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds[:4] == ["Conv2d", "Threshold", "MaxPool2d", "Dropout"]
    assert "ReLU" not in kinds


def test_layers_are_plain_torch_layers():
    known = {"Conv2d", "BatchNorm2d", "ReLU", "Threshold", "MaxPool2d", "Dropout"}
    for architecture in ARCHITECTURES:
        kinds = {type(layer).__name__ for layer in small(architecture).layers}
        assert kinds <= known


def test_full_layer_is_channel_major():
    """One weight of the published matrix, at column c * length + l, meets channel c at place l."""
    net = small("deepsea")
    full = net.layers.full1
    length = full.weight.shape[-1]
    matrix = torch.zeros(20, 8 * length)
    matrix[7, 3 * length + 2] = 1.0
    with torch.no_grad():
        full.weight.copy_(matrix.reshape(full.weight.shape))
        full.bias.zero_()
    x = torch.rand(2, 8, 1, length)
    assert torch.equal(full(x)[:, 7, 0, 0], x[:, 3, 0, 2])


@pytest.mark.parametrize(
    ("architecture", "order", "n_value"),
    [("basset", "ACGT", 0.25), ("beluga", "AGCT", 0.0), ("deepsea", "AGCT", 0.0)],
)
def test_published_input_conventions(architecture, order, n_value):
    assert (order, n_value) == net_class(architecture).ENCODING


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["basset", "beluga", "deepsea"])
def test_training_mode_learns(architecture):
    torch.manual_seed(0)
    net = build(architecture, SMALL[architecture])
    assert net.training
    x = windows(net, 16)
    wanted = torch.randint(0, 2, (16, net.config["targets"])).float()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        loss = nn.functional.binary_cross_entropy_with_logits(net(x), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("architecture", ["basset", "beluga", "deepsea"])
def test_gradients_equal_those_of_the_kipoi_net(architecture):
    """In-place activations must not disturb the backward pass."""
    net = small(architecture).double()
    twin = kipoi_twin(net)
    x = windows(net, 3).double()
    net(x).sigmoid().square().sum().backward()
    twin(x).square().sum().backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.reshape(theirs.shape), theirs.grad)


def test_config_makes_the_same_net_again():
    for architecture in ARCHITECTURES:
        net = small(architecture)
        again = build(architecture, net.config)
        assert again.config == net.config
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in net.state_dict().items()
        }


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        (
            "enformer",
            {},
            "is called 'enformer'; there are: basset, beluga, deepsea",
        ),
        ("basset", {"widow": 600}, "basset takes no 'widow'; it takes: channels, dropout"),
        ("basset", {"window": 100}, "a window of 100 is too short .* nothing is left"),
        ("deepsea", {"window": 150}, "a window of 150 is too short"),
        ("basset", {"window": "600"}, "window is '600'; it must be whole numbers"),
        ("basset", {"targets": 0}, "targets is 0; it must be whole numbers of at least 1"),
        ("basset", {"targets": True}, "targets is True"),
        ("basset", {"channels": (16, 16)}, "lists of unequal length: {'channels': 2, 'kernels': 3"),
        ("basset", {"channels": 16}, "channels is 16; it must be a list of numbers"),
        ("basset", {"hidden": "ab"}, "hidden is 'ab'; it must be a list of numbers"),
        ("basset", {"window": [600]}, r"window is \[600\]; it must be one number"),
        ("basset", {"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ("deepsea", {"dropouts": (0.2, "x", 0.5)}, r"dropouts is .*; it must lie in \[0, 1\)"),
        ("deepsea", {"channels": (), "dropouts": ()}, "channels is empty"),
    ],
)
def test_what_cannot_be_built(architecture, config, message):
    with pytest.raises(UsageError, match=message) as caught:
        build(architecture, config)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_randomise_is_lively_repeatable_and_leaves_the_global_state():
    state = torch.random.get_rng_state()
    net, again, other = build("basset"), build("basset"), build("basset")
    torch.random.set_rng_state(state)
    randomise(net, 0)
    randomise(again, 0)
    randomise(other, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [n.state_dict() for n in (net, again, other)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not torch.equal(weights[0]["layers.conv1.weight"], weights[2]["layers.conv1.weight"])
    net.eval()
    with torch.inference_mode():
        logits = net(windows(net, 16))
    assert logits.std(0).mean() > 0.1
    assert logits.abs().max() < 20


@pytest.mark.slow
def test_only_building_a_net_costs_torch():
    code = (
        "import sys; from raygenome import models; from raygenome.registry import model, registry;"
        "registry.list_models(); model.Model.open('demo');"
        "assert 'torch' not in sys.modules; models.build('basset'); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
