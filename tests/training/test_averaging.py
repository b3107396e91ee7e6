"""The moving average of weights, and the initial bias at the base rates."""

import numpy as np
import torch

from raygenome.models import build
from raygenome.training.objective import MovingAverage, set_prior

CONFIG = {
    "window": 40,
    "targets": 3,
    "channels": [4],
    "kernels": [5],
    "pools": [4],
    "hidden": [5],
}


def changed(net: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator))
            else:
                value += 1


def test_it_is_the_mean_that_its_formula_gives() -> None:
    net = build("basset", CONFIG)
    average = MovingAverage(net, 0.8)
    expected = {name: value.double().clone() for name, value in net.state_dict().items()}
    for step in range(1, 60):
        changed(net, step)
        average.update(net, step)
        keep = min(0.8, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value.double()
    found = average.net.state_dict()
    for name, value in expected.items():
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(found[name], net.state_dict()[name])
    assert not average.net.training


def test_it_goes_on_from_its_state() -> None:
    net = build("basset", CONFIG)
    whole, first = MovingAverage(net, 0.9), MovingAverage(net, 0.9)
    for step in range(1, 20):
        changed(net, step)
        whole.update(net, step)
        if step == 10:
            state = {name: value.clone() for name, value in (whole.state() or {}).items()}
            first.restore(state)
        if step > 10:
            first.update(net, step)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, first.net.state_dict()[name])


def test_without_a_decay_there_is_one_net() -> None:
    net = build("basset", CONFIG)
    average = MovingAverage(net, None)
    average.update(net, 1)
    assert average.net is net
    assert average.state() is None


def test_the_output_begins_at_the_base_rates() -> None:
    net = build("basset", CONFIG)
    set_prior(net, np.array([0, 50, 999]), 1000)
    bias = net.layers[-1].bias.detach().double()
    np.testing.assert_allclose(torch.sigmoid(bias), np.array([0.5, 50.5, 999.5]) / 1001, rtol=1e-5)
