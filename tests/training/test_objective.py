"""Optimisers, losses and penalties, compared with the published rules in float64.

A whole `Worker` runs on a toy net of two full layers, and a few lines of NumPy do the same as the
Torch7 code of both papers. So the order within a step is tested as well.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.small_training import recipe, write_packed
from torch import nn

from raygenome import models
from raygenome.datasets.packed import Dataset
from raygenome.genome.targets import Target
from raygenome.models.layers import LayeredNet, conv
from raygenome.training.config import TrainConfig, make_config
from raygenome.training.loop import Task, Worker
from raygenome.training.objective import Objective, clip_norms, learning_rate, make_optimizer
from raygenome.training.order import epoch_samples

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW, HIDDEN, BATCH, STEPS = 6, 5, 8, 3
TARGETS = [Target(i, f"t{i}", "cell", "assay", "", "TF") for i in range(3)]


class Toy(LayeredNet):
    """Two full layers with a ReLU between them, so that gradients are simple."""

    def __init__(self, *, window: int = WINDOW, targets: int = 3) -> None:
        layers: dict[str, nn.Module] = {
            "full": conv(4, HIDDEN, window),
            "relu": nn.ReLU(),
            "output": conv(HIDDEN, targets, 1),
        }
        super().__init__({"window": window, "targets": targets}, layers)


class Weights(NamedTuple):
    """The weights of the toy net, float64, one row per output unit."""

    full: np.ndarray
    full_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray


def weights_of(net: nn.Module) -> Weights:
    values = [value.detach().double().numpy().copy() for value in net.state_dict().values()]
    return Weights(*(value.reshape(len(value), -1).squeeze() for value in values))


def gradients(
    at: Weights, x: np.ndarray, y: np.ndarray, *, loss: str, l1: dict[str, Any] | None = None
) -> Weights:
    """Return the gradients of a batch: x (N, 4 * L), y (N, T)."""
    hidden = np.maximum(x @ at.full.T + at.full_bias, 0)
    logits = hidden @ at.output.T + at.output_bias
    d_logits = 1 / (1 + np.exp(-logits)) - y
    if loss == "mean":
        d_logits = d_logits / y.size
    d_hidden = d_logits @ at.output
    d_last = d_logits
    if l1 and l1["on"] == "logits":  # only into the last layer's own weights
        d_last = d_logits + l1["weight"] * np.sign(logits)
    if l1 and l1["on"] == "hidden":
        d_hidden = d_hidden + l1["weight"] * np.sign(hidden)
    d_hidden = d_hidden * (hidden > 0)
    return Weights(d_hidden.T @ x, d_hidden.sum(0), d_last.T @ hidden, d_last.sum(0))


def renormed(values: np.ndarray, limit: float) -> np.ndarray:
    """Return Torch7's `renorm(2, 1, limit)` of a matrix; a bias, of one axis, is left as it is."""
    if values.ndim == 1:
        return values
    norms = np.sqrt((values**2).sum(1, keepdims=True))
    return np.where(norms > limit, values * limit / np.maximum(norms, 1e-30), values)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setitem(models.ARCHITECTURES, "toy", f"{__name__}:Toy")
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (40, WINDOW)).astype(np.uint8)
    labels = rng.integers(0, 2, (40, 3)).astype(np.uint8)
    return write_packed(tmp_path / "data", targets=TARGETS, train=(codes, labels))


def toy(**changes: Any) -> dict[str, Any]:
    """Return a recipe of three steps of the toy net."""
    return recipe(
        architecture="toy",
        net={},
        epochs=1,
        batch_size=BATCH,
        epoch_samples=BATCH * STEPS,
        **{"strands": "forward", **changes},
    )


def trained(dataset: Dataset, values: dict[str, Any]) -> tuple[Weights, Weights]:
    """Return the weights before and after a run."""
    data = Path(dataset.place)
    out = data.with_name(f"run-{len(list(data.parent.iterdir()))}")
    worker = Worker(Task(make_config(values), str(data), str(out), "cpu"))
    before = weights_of(worker.net)
    assert worker.run().step == STEPS
    return before, weights_of(worker.net)


def batches(dataset: Dataset, values: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return x (N, 4 * L) and y (N, T) of each step, channel by channel."""
    split = dataset.split("train")
    rows = epoch_samples(values["seed"], 0, split.n_rows, limit=BATCH * STEPS).row
    found = []
    for step in range(STEPS):
        mine = rows[step * BATCH : (step + 1) * BATCH]
        one_hot = split.codes(mine)[:, None, :] == np.arange(4)[:, None]
        found.append((one_hot.reshape(BATCH, -1).astype(float), split.labels(mine).astype(float)))
    return found


Rule = Callable[[int, int, np.ndarray, np.ndarray], np.ndarray]


def by_hand(dataset: Dataset, values: dict[str, Any], before: Weights, rule: Rule) -> Weights:
    """Return the weights after the steps of `rule(step, which, weights, gradient)`."""
    at = before
    for step, (x, y) in enumerate(batches(dataset, values)):
        found = gradients(at, x, y, loss=values.get("loss", "mean"), l1=values.get("l1"))
        at = Weights(*(rule(step, which, at[which], found[which]) for which in range(4)))
    return at


def assert_same(found: Weights, wanted: Weights, before: Weights) -> None:
    """Compare the changes of the weights, so that a missing step shows with large weights too."""
    for mine, his, was in zip(found, wanted, before, strict=True):
        most = np.abs(his - was).max()
        assert most > 1e-5
        np.testing.assert_allclose(mine - was, his - was, rtol=2e-4, atol=2e-5 * most)


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_sgd_is_torch7s_with_dampening_decay_and_row_renorm(dataset: Dataset, loss: str) -> None:
    lr, momentum, decay, weight_decay, limit = 0.7 if loss == "mean" else 0.02, 0.9, 0.3, 0.01, 0.5
    values = toy(
        loss=loss,
        optimizer={
            "name": "sgd",
            "lr": lr,
            "momentum": momentum,
            "dampening": momentum,
            "weight_decay": weight_decay,
        },
        schedule={"name": "inverse", "decay": decay},
        max_norm=limit,
    )
    buffers: dict[int, np.ndarray] = {}

    def sgd(step: int, which: int, weights: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        gradient = gradient + weight_decay * weights
        if which in buffers:
            buffers[which] = momentum * buffers[which] + (1 - momentum) * gradient
        else:
            buffers[which] = gradient
        return renormed(weights - lr / (1 + decay * step) * buffers[which], limit)

    before, after = trained(dataset, values)
    assert (np.sqrt((before.full**2).sum(1)) > limit).any(), "the norm is to matter"
    assert_same(after, by_hand(dataset, values, before, sgd), before)
    assert np.sqrt((after.full**2).sum(1)).max() <= limit + 1e-6
    assert np.abs(after.full_bias).max() > 0


def test_rmsprop_is_torch7s_with_max_norm_and_summed_loss(dataset: Dataset) -> None:
    lr, alpha, eps, limit = 0.5, 0.98, 1e-8, 7.0
    values = toy(
        loss="sum",
        optimizer={"name": "rmsprop", "lr": lr, "alpha": alpha, "eps": eps},
        max_norm=limit,
    )
    squares: dict[int, np.ndarray] = {}

    def rmsprop(step: int, which: int, weights: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        mean = alpha * squares.get(which, 0.0) + (1 - alpha) * gradient**2
        squares[which] = mean
        return renormed(weights - lr * gradient / (np.sqrt(mean) + eps), limit)

    before, after = trained(dataset, values)
    assert_same(after, by_hand(dataset, values, before, rmsprop), before)
    assert np.sqrt((after.full**2).sum(1)).max() == pytest.approx(limit), "the norm is to matter"


def test_adamw_is_torchs_own(dataset: Dataset) -> None:
    options = {"lr": 0.02, "betas": [0.8, 0.95], "eps": 1e-7, "weight_decay": 0.1}
    values = toy(optimizer={"name": "adamw", **options})
    before, after = trained(dataset, values)
    twins = [torch.from_numpy(each.copy()).requires_grad_() for each in before]
    plain = torch.optim.AdamW(twins, foreach=False, fused=False, **options)  # type: ignore[arg-type]
    at = before
    for x, y in batches(dataset, values):
        for twin, gradient in zip(twins, gradients(at, x, y, loss="mean"), strict=True):
            twin.grad = torch.from_numpy(gradient)
        plain.step()
        at = Weights(*(twin.detach().numpy().copy() for twin in twins))
    assert_same(after, at, before)


@pytest.mark.parametrize("on", ["hidden", "logits"])
def test_l1_is_on_the_hidden_layer_or_on_the_last_ones_own_weights(
    dataset: Dataset, on: str
) -> None:
    values = toy(optimizer={"name": "sgd", "lr": 0.5}, l1={"weight": 0.003, "on": on}, loss="mean")

    def plain(step: int, which: int, weights: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return weights - 0.5 * gradient

    before, after = trained(dataset, values)
    assert_same(after, by_hand(dataset, values, before, plain), before)
    without = by_hand(dataset, toy(loss="mean"), before, plain)
    assert np.abs(after.output - without.output).max() > 1e-4, "the penalty is to matter"


def first_gradients(dataset: Dataset, **changes: Any) -> Weights:
    """Return the gradients of the first batch, before any step."""
    values = toy(**changes)
    data = Path(dataset.place)
    worker = Worker(Task(make_config(values), str(data), str(data.with_name("g")), "cpu"))
    x, y = batches(dataset, values)[0]
    x_NCL = torch.from_numpy(x.reshape(BATCH, 4, WINDOW)).float()
    worker.objective(x_NCL, torch.from_numpy(y).float()).objective.backward()
    grads = [p.grad.double().numpy() for p in worker.net.parameters()]  # type: ignore[union-attr]
    return Weights(*(each.reshape(len(each), -1).squeeze() for each in grads))


def test_l1_on_logits_touches_nothing_below_the_last_layer(dataset: Dataset) -> None:
    plain = first_gradients(dataset)
    logits = first_gradients(dataset, l1={"weight": 0.01, "on": "logits"})
    assert np.array_equal(logits.full, plain.full)
    assert np.array_equal(logits.full_bias, plain.full_bias)
    assert (logits.output != plain.output).any()
    assert (logits.output_bias != plain.output_bias).any()
    hidden = first_gradients(dataset, l1={"weight": 0.01, "on": "hidden"})
    assert np.array_equal(hidden.output, plain.output)
    assert (hidden.full != plain.full).any()


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("l1", [None, {"weight": 0.01, "on": "hidden"}])
def test_the_mean_over_workers_is_the_loss_of_the_whole_batch(
    loss: str, world: int, l1: dict[str, Any] | None
) -> None:
    torch.manual_seed(0)
    net = Toy()
    x = torch.eye(4)[torch.randint(4, (BATCH, WINDOW))].transpose(1, 2)
    y = torch.randint(2, (BATCH, 3)).float()
    objective = Objective(net, make_config(toy(loss=loss, l1=l1)), world)
    cuts = [0, 1, BATCH] if world == 2 else [*range(world), BATCH]  # uneven parts
    parts = [objective(x[a:b], y[a:b]) for a, b in pairwise(cuts)]
    found = sum(part.objective.item() for part in parts) / world
    logits = net(x).detach().double().numpy()
    labels = y.numpy()
    entropy = np.log1p(np.exp(-logits)) * labels + np.log1p(np.exp(logits)) * (1 - labels)
    wanted = entropy.mean() if loss == "mean" else entropy.sum()
    if l1:
        hidden = net.layers[:-1](x.unsqueeze(2))
        wanted += 0.01 * hidden.detach().double().abs().sum().item()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert sum(part.cross_entropy.item() for part in parts) == pytest.approx(entropy.sum(), 1e-5)
    assert not parts[0].cross_entropy.requires_grad


def test_the_loss_is_exact_far_from_a_half() -> None:
    net = Toy()
    with torch.no_grad():
        net.layers[-1].weight.zero_()
        net.layers[-1].bias.fill_(60)  # a probability that is 1 in float32
    x = torch.zeros(2, 4, WINDOW)
    losses = Objective(net, make_config(toy(loss="sum")), 1)(x, torch.zeros(2, 3))
    assert losses.objective.item() == pytest.approx(2 * 3 * 60)


def test_bfloat16_is_near_float32_and_the_weights_stay_wide() -> None:
    torch.manual_seed(1)
    net = Toy()
    x = torch.eye(4)[torch.randint(4, (BATCH, WINDOW))].transpose(1, 2)
    y = torch.randint(2, (BATCH, 3)).float()
    low, wide = (
        Objective(net, make_config(toy(precision=name)), 1)(x, y).objective
        for name in ("bf16", "fp32")
    )
    assert low.dtype == torch.float32
    assert low.item() != wide.item()
    assert low.item() == pytest.approx(wide.item(), rel=0.02)
    low.backward()
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}  # type: ignore[union-attr]


def test_norms_are_clipped_row_by_row_and_biases_not() -> None:
    torch.manual_seed(2)
    net = Toy()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
        net.layers[0].weight[0] *= 0.01
    before = weights_of(net)
    clip_norms(net, 0.9)
    after = weights_of(net)
    for mine, was in zip(after, before, strict=True):
        np.testing.assert_allclose(mine, renormed(was, 0.9), rtol=1e-6)
    assert np.array_equal(after.full[0], before.full[0]), "a short row is left as it is"
    assert np.array_equal(after.output_bias, before.output_bias)


def with_schedule(**schedule: Any) -> TrainConfig:
    return make_config(toy(optimizer={"name": "sgd", "lr": 2.0}, schedule=schedule))


def test_rates_of_a_constant_and_of_torch7s_decay() -> None:
    assert [learning_rate(with_schedule(), step, 10) for step in (0, 5, 9)] == [2, 2, 2]
    decaying = with_schedule(name="inverse", decay=0.5)
    assert [learning_rate(decaying, step, 10) for step in range(4)] == [2, 2 / 1.5, 1, 2 / 2.5]


def test_rates_of_a_cosine() -> None:
    cosine = with_schedule(name="cosine", final=0.1)
    rates = [learning_rate(cosine, step, 100) for step in range(101)]
    assert rates[0] == 2
    assert rates[50] == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert rates[25] == pytest.approx(2 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2))
    assert rates[100] == pytest.approx(0.2)
    assert rates[99] == pytest.approx(0.2, rel=0.01)
    assert all(late < early for early, late in pairwise(rates))


def test_rates_rise_in_a_line_and_then_fall() -> None:
    warm = with_schedule(name="cosine", warmup=0.1)
    rates = [learning_rate(warm, step, 100) for step in range(100)]
    rise = np.diff(rates[:11])
    assert rise == pytest.approx(rise[0])
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[10] == 2 == max(rates)
    assert all(late < early for early, late in pairwise(rates[10:]))
    flat = with_schedule(warmup=0.5)
    assert [learning_rate(flat, step, 4) for step in range(4)] == pytest.approx(
        [2 / 3, 4 / 3, 2, 2]
    )


@pytest.mark.parametrize(
    ("options", "kind", "holds"),
    [
        ({"name": "sgd", "momentum": 0.9, "dampening": 0.8}, torch.optim.SGD, {"dampening": 0.8}),
        ({"name": "rmsprop", "alpha": 0.98, "eps": 1e-6}, torch.optim.RMSprop, {"alpha": 0.98}),
        ({"name": "adamw", "betas": [0.5, 0.6]}, torch.optim.AdamW, {"betas": (0.5, 0.6)}),
    ],
)
def test_an_optimizer_is_torchs_with_all_parameters_in_it(
    options: dict[str, Any], kind: type, holds: dict[str, Any]
) -> None:
    net = Toy()
    found = make_optimizer(
        net, make_config(toy(optimizer={"lr": 0.3, "weight_decay": 0.1, **options}))
    )
    (group,) = found.param_groups
    assert type(found) is kind
    assert group["lr"] == 0.3
    assert group["weight_decay"] == 0.1
    assert len(group["params"]) == 4, "biases decay too"
    for key, value in holds.items():
        assert group[key] == value
