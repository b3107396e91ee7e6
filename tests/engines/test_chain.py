"""The planner: the chain of a net, the range that a change affects, and the refused nets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_oracle import StageSpec, ToyNet, beluga_stages, toy_net, toy_nets
from torch import nn
from torch.nn import functional

from raygenome.engines.choice import choose_engine
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.planner import NoChainError, plan_chain
from raygenome.models import build
from raygenome.registry.weights import randomise

pytestmark = pytest.mark.usefixtures("one_thread")


# What is read.


def test_deepsea() -> None:
    chain = plan_chain(build("deepsea"))
    assert [stage.kernel for stage in chain.stages] == [8, 8, 8]
    assert [stage.pool for stage in chain.stages] == [4, 4, 1]
    assert [stage.stride for stage in chain.stages] == [1, 4, 16]
    assert [stage.inputs for stage in chain.stages] == [995, 247, 60]
    assert [stage.outputs for stage in chain.stages] == [988, 240, 53]
    assert [stage.groups for stage in chain.stages] == [247, 60, 53]
    assert (chain.width, chain.receptive) == (1000, 995)
    assert (chain.features, chain.feature_stride) == (53, 16)
    assert chain.feature_receptive == 995 - 52 * 16
    assert [tuple(layer.weight.shape) for layer in chain.head] == [(925, 53, 960), (919, 1, 925)]


def test_basset() -> None:
    chain = plan_chain(build("basset"))
    assert [stage.kernel for stage in chain.stages] == [19, 11, 7]
    assert [stage.pool for stage in chain.stages] == [3, 4, 4]
    assert [stage.stride for stage in chain.stages] == [1, 3, 12]
    assert (chain.width, chain.receptive) == (600, 600)
    assert (chain.features, chain.feature_stride) == (10, 48)
    assert [tuple(layer.weight.shape)[:2] for layer in chain.head] == [
        (1000, 10),
        (1000, 1),
        (164, 1),
    ]


def test_a_net_shaped_as_beluga() -> None:
    net = toy_net(beluga_stages(), features=106, slack=10)
    chain = plan_chain(net)
    assert chain.width == 2000
    assert [stage.pool for stage in chain.stages] == [1, 4, 1, 4, 1, 1]
    assert [stage.stride for stage in chain.stages] == [1, 1, 4, 4, 16, 16]
    assert (chain.features, chain.feature_stride, chain.receptive) == (106, 16, 1990)


@pytest.mark.parametrize("architecture", ["deepsea", "basset"])
def test_weights_are_not_looked_at(architecture: str) -> None:
    with torch.device("meta"):
        net = build(architecture)
    chain = plan_chain(net)
    assert chain.receptive == plan_chain(build(architecture)).receptive
    assert choose_engine("auto", net) == ("incremental", "")


def test_a_convolution_without_bias_on_the_meta_device() -> None:
    with torch.device("meta"):
        layers = plain_layers()
        layers["conv1"] = nn.Conv2d(4, 3, (1, 5), bias=False)
        layers["norm1"] = nn.BatchNorm2d(3)
        assert plan_chain(ToyNet(in_order(layers), 40)).features == 8


def chain_logits(chain: Chain, x: torch.Tensor) -> torch.Tensor:
    """Return the logits of one-hot windows (N, 4, width) by the chain's definition, in float64."""
    for stage in chain.stages:
        x = x[:, :, : stage.inputs]
        x = functional.conv1d(x, stage.weight.double(), stage.bias.double())
        assert x.shape[2] == stage.outputs
        x = functional.max_pool1d(stage.activation.apply_(x), stage.pool)
        assert x.shape[2] == stage.groups
    rows = x.transpose(1, 2)  # (N, features, C)
    for i, layer in enumerate(chain.head):
        weight, bias = layer.weight.double().flatten(1), layer.bias.double()
        z = functional.linear(rows.flatten(1), weight, bias)
        rows = z if i == len(chain.head) - 1 else layer.activation.apply_(z)
    return rows


@settings(max_examples=60, deadline=None)
@given(net=toy_nets(), seed=st.integers(0, 99))
def test_the_chain_is_the_net(net: ToyNet, seed: int) -> None:
    """Batch norm folded in, pools before or after activations, leftovers dropped: the same."""
    chain = plan_chain(net)
    codes = np.random.default_rng(seed).integers(0, 4, (6, chain.width))
    x = torch.from_numpy(np.eye(4)[codes]).transpose(1, 2)
    with torch.no_grad():
        expected = net.double()(x)
        found = chain_logits(chain, x)
    scale = 1 + expected.abs().max()
    assert (found - expected).abs().max() <= 2e-6 * scale  # folded weights are float32


def test_a_norm_of_no_weights_and_a_convolution_without_bias() -> None:
    layers = plain_layers()
    layers["conv1"] = nn.Conv2d(4, 3, (1, 5), bias=False)
    layers["norm1"] = nn.BatchNorm2d(3, affine=False)
    net = ToyNet(in_order(layers), 40).eval()
    net.layers.norm1.running_mean.uniform_(-1, 1)
    net.layers.norm1.running_var.uniform_(0.5, 2)
    chain = plan_chain(net)
    x = torch.eye(4, dtype=torch.float64)[torch.randint(4, (3, 40))].transpose(1, 2)
    with torch.no_grad():
        expected = net.double()(x)
        torch.testing.assert_close(chain_logits(chain, x), expected, atol=1e-6, rtol=1e-6)


def test_one_layer_object_in_two_places() -> None:
    relu = nn.ReLU()
    layers = plain_layers()
    layers["act1"] = relu
    del layers["output"]  # so that it comes last again
    layers["full1"] = nn.Conv2d(3, 6, (1, 8))
    layers["full_act"] = relu
    layers["output"] = nn.Conv2d(6, 2, (1, 1))
    net = ToyNet(layers, 40)
    randomise(net, 1)
    chain = plan_chain(net.eval())
    assert chain.head[0].activation.name == "relu"


# What changes.


def test_deepsea_changes_at_its_centre() -> None:
    chain = plan_chain(build("deepsea"))
    assert chain.changed_by(499) == [
        ((499, 500), (492, 500), (123, 125)),
        ((123, 125), (116, 125), (29, 32)),
        ((29, 32), (22, 32), (22, 32)),
    ]
    # The base that is at 499 stands at 500 on the other strand.
    assert chain.changed_by(500) == [
        ((500, 501), (493, 501), (123, 126)),
        ((123, 126), (116, 126), (29, 32)),
        ((29, 32), (22, 32), (22, 32)),
    ]
    assert chain.changed_by(994)
    assert chain.changed_by(995) == chain.changed_by(999) == []


def test_basset_changes_at_its_centre() -> None:
    chain = plan_chain(build("basset"))
    assert chain.changed_by(299) == [
        ((299, 300), (281, 300), (93, 100)),
        ((93, 100), (83, 100), (20, 25)),
        ((20, 25), (14, 25), (3, 7)),
    ]
    assert chain.changed_by(300) == [
        ((300, 301), (282, 301), (94, 101)),
        ((94, 101), (84, 101), (21, 26)),
        ((21, 26), (15, 26), (3, 7)),
    ]
    assert chain.changed_by(599)


def activations(net: ToyNet, window: torch.Tensor) -> list[np.ndarray]:
    """Return what each convolution and pool of `net` gives for a window (4, L): (C, length)."""
    found = []
    x = window[None, :, None]
    with torch.no_grad():
        for layer in net.layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                found.append(x[0, :, 0].numpy().copy())
    return found


@settings(max_examples=80, deadline=None)
@given(net=toy_nets(), data=st.data())
def test_what_changes_lies_in_the_intervals(net: ToyNet, data: st.DataObject) -> None:
    chain, net = plan_chain(net), net.double()
    index = data.draw(st.integers(0, chain.width - 1))
    codes = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 4, chain.width)
    other = codes.copy()
    other[index] = (codes[index] + 1) % 4
    ref, alt = (activations(net, torch.from_numpy(np.eye(4)[c].T)) for c in (codes, other))
    changes = chain.changed_by(index)
    assert bool(changes) == (index < chain.receptive)
    layer = 0
    for i, stage in enumerate(chain.stages):
        kinds = ["outputs", "groups"] if stage.pool > 1 else ["outputs"]
        for kind in kinds:
            length = getattr(stage, kind)
            differ = np.flatnonzero((ref[layer] != alt[layer]).any(axis=0)[:length])
            low, high = getattr(changes[i], kind) if changes else (0, 0)
            assert all(low <= place < high for place in differ)
            assert 0 <= low <= high <= length
            layer += 1


@pytest.mark.parametrize("index", [0, 1, 9, 17, 25, 30])
def test_intervals_are_no_longer_than_needed(index: int) -> None:
    """Without activations and pools, everything within the intervals changes."""
    net = toy_net(
        [StageSpec(2, 4, activation="none"), StageSpec(3, 5, activation="none")], features=24
    )
    chain = plan_chain(net)
    assert chain.receptive == 31
    ref = torch.eye(4)[torch.randint(4, (31,))].T
    alt = ref.clone()
    alt[:, index] = ref[:, index].roll(1)
    changes = chain.changed_by(index)
    for before, after, change in zip(
        activations(net, ref), activations(net, alt), changes, strict=False
    ):
        differ = np.flatnonzero((before != after).any(axis=0))
        assert (differ.min(), differ.max() + 1) == change.outputs


# What is refused.


def plain_layers() -> dict[str, nn.Module]:
    """Return layers that are a chain, of a window of 40: 36, pooled to 9, 8."""
    return {
        "conv1": nn.Conv2d(4, 3, (1, 5)),
        "act1": nn.ReLU(),
        "pool1": nn.MaxPool2d((1, 4)),
        "conv2": nn.Conv2d(3, 3, (1, 2)),
        "output": nn.Conv2d(3, 2, (1, 8)),
    }


def in_order(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return `layers` with norm1 put after conv1."""
    order = ["conv1", "norm1", "act1", "pool1", "conv2", "output"]
    return {name: layers[name] for name in order}


def replaced(name: str, layer: nn.Module) -> dict[str, nn.Module]:
    return plain_layers() | {name: layer}


def inserted(after: str, name: str, layer: nn.Module) -> dict[str, nn.Module]:
    layers = {}
    for old, kept in plain_layers().items():
        layers[old] = kept
        if old == after:
            layers[name] = layer
    return layers


class Residual(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.relu()


REFUSED = [
    (replaced("conv2", nn.Conv2d(3, 3, (1, 3), padding=(0, 1))), "convolution conv2 has padding"),
    (replaced("conv2", nn.Conv2d(3, 3, (1, 3), padding="same")), "convolution conv2 has padding"),
    (replaced("conv2", nn.Conv2d(3, 3, (1, 2), dilation=(1, 2))), "convolution conv2 has dilation"),
    (replaced("conv1", nn.Conv2d(4, 3, (1, 5), stride=(1, 2))), "convolution conv1 has a stride"),
    (replaced("conv2", nn.Conv2d(3, 3, (1, 2), groups=3)), "convolution conv2 has groups"),
    (replaced("conv1", nn.Conv2d(4, 3, (2, 5))), "convolution conv1 has height"),
    (replaced("pool1", nn.MaxPool2d((1, 4), (1, 2))), "pool pool1 overlaps or skips"),
    (replaced("pool1", nn.MaxPool2d((1, 2), (1, 4))), "pool pool1 overlaps or skips"),
    (replaced("pool1", nn.MaxPool2d((1, 4), ceil_mode=True)), "pool pool1 has .*ceil_mode"),
    (replaced("pool1", nn.MaxPool2d((1, 4), padding=(0, 1))), "pool pool1 has padding"),
    (replaced("pool1", nn.MaxPool2d((1, 4), dilation=(1, 2))), "pool pool1 has .*dilation"),
    (replaced("pool1", nn.AvgPool2d((1, 4))), "layer pool1 is a AvgPool2d"),
    (replaced("act1", nn.Softmax(dim=1)), "layer act1 is a Softmax"),
    (replaced("act1", nn.PReLU()), "layer act1 is a PReLU"),
    (replaced("act1", Residual()), "layer act1 is a Residual"),
    (replaced("act1", nn.Sequential(nn.ReLU())), "layer act1 is a Sequential"),
    (inserted("act1", "norm1", nn.BatchNorm2d(3)), "norm1 does not follow its convolution"),
    (inserted("pool1", "norm1", nn.BatchNorm2d(3)), "norm1 does not follow its convolution"),
    (inserted("conv1", "norm1", nn.LayerNorm(36)), "layer norm1 is a LayerNorm"),
    (inserted("act1", "act2", nn.ReLU()), "activation act2 follows another"),
    (inserted("pool1", "pool2", nn.MaxPool2d((1, 2))), "pool pool2 follows another"),
    ({"act0": nn.ReLU()} | plain_layers(), r"layer act0 \(ReLU\) comes before a convolution"),
    ({"flat": nn.Flatten()} | plain_layers(), r"layer flat \(Flatten\) comes before"),
]


@pytest.mark.parametrize(("layers", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused_with_the_layers_name(layers: dict[str, nn.Module], message: str) -> None:
    net = ToyNet(layers, 40)
    with pytest.raises(NoChainError, match=message) as refused:
        plan_chain(net)
    assert "\n" not in str(refused.value)
    assert choose_engine("auto", net) == ("full", str(refused.value))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.Threshold(0, 1e-6)])
def test_a_function_that_falls_may_not_follow_a_pool(activation: nn.Module) -> None:
    layers = plain_layers()
    del layers["act1"]
    layers = {
        "conv1": layers.pop("conv1"),
        "pool1": layers.pop("pool1"),
        "act1": activation,
    } | layers
    with pytest.raises(NoChainError, match="activation act1 is not monotone and follows a pool"):
        plan_chain(ToyNet(layers, 40))
    plan_chain(ToyNet(replaced("act1", activation), 40))


@pytest.mark.parametrize("activation", [nn.LeakyReLU(-0.5), nn.ELU(-1.0)])
def test_a_monotone_kind_with_a_parameter_that_makes_it_fall(activation: nn.Module) -> None:
    chain = plan_chain(ToyNet(replaced("act1", activation), 40))
    assert not chain.stages[0].activation.monotone


def test_a_norm_that_keeps_no_statistics() -> None:
    layers = inserted("conv1", "norm1", nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(NoChainError, match="batch norm norm1 keeps no"):
        plan_chain(ToyNet(layers, 40))


def test_nothing_after_the_last_convolution() -> None:
    layers = plain_layers()
    del layers["output"]
    with pytest.raises(NoChainError, match="does not end in linear layers"):
        plan_chain(ToyNet(layers, 40))


def test_linear_layers_and_no_convolution() -> None:
    layers = {"full": nn.Conv2d(4, 3, (1, 40)), "output": nn.Conv2d(3, 2, (1, 1))}
    with pytest.raises(NoChainError, match="after a convolution"):
        plan_chain(ToyNet(layers, 40))


def test_a_pool_after_the_linear_layers_began() -> None:
    layers = replaced("output", nn.Conv2d(3, 2, (1, 6))) | {"pool2": nn.MaxPool2d((1, 3))}
    with pytest.raises(NoChainError, match="pool after the first linear layer"):
        plan_chain(ToyNet(layers, 40))


def test_an_activation_at_the_very_end() -> None:
    """The engine would take the activation's output for a logit."""
    with pytest.raises(NoChainError, match="sigmoid"):
        plan_chain(ToyNet(plain_layers() | {"sigmoid": nn.Sigmoid()}, 40))


def test_a_window_too_short() -> None:
    with pytest.raises(NoChainError, match="too short"):
        plan_chain(ToyNet(plain_layers(), 7))


@pytest.mark.parametrize("net", [nn.Linear(3, 3), nn.Sequential(nn.Conv2d(4, 3, (1, 5)))])
def test_a_module_that_is_no_list_of_layers(net: nn.Module) -> None:
    with pytest.raises(NoChainError, match="not a plain list of layers"):
        plan_chain(net)


def test_a_forward_of_its_own() -> None:
    """The engine would leave out everything that `forward` does besides the layers."""

    class Doubled(ToyNet):
        def forward(self, x_NCL: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x_NCL)

    with pytest.raises(NoChainError, match="not a plain list of layers"):
        plan_chain(Doubled(plain_layers(), 40))


def test_layers_in_a_module_of_another_kind() -> None:
    net = ToyNet(plain_layers(), 40)
    net.layers = nn.ModuleList(net.layers)  # type: ignore[assignment]
    with pytest.raises(NoChainError, match="not a plain list of layers"):
        plan_chain(net)
