"""Dropout and batch norm: the same on many workers as on one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.two_processes import run_together
from torch import nn

from raygenome.models import build
from raygenome.training import layers
from raygenome.training.layers import MicroBatchDropout, SharedBatchNorm
from raygenome.training.order import MAX_MICROBATCHES, microbatches_of

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = {
    "window": 60,
    "targets": 2,
    "channels": [6, 5],
    "kernels": [5, 3],
    "pools": [4, 2],
    "hidden": [7, 8],
    "dropout": 0.3,
}


def masks(x: torch.Tensor, world: int, *, p: float = 0.4, step: int = 3, layer: int = 1):
    """Return `x` after dropout by `world` workers, each on its own part."""
    parts = []
    for rank in range(world):
        mine = microbatches_of(len(x), rank, world)
        dropout = MicroBatchDropout(p, layer)
        dropout.begin_step(9, step, mine)
        parts.append(dropout(x[mine.samples]))
    return torch.cat(parts)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 150),
    shape=st.sampled_from([(3, 1, 7), (20, 1, 1), (2, 1, 16)]),
    layout=st.sampled_from([torch.channels_last, torch.contiguous_format]),
    data=st.data(),
)
def test_the_mask_does_not_depend_on_how_a_batch_is_split(
    batch: int, shape: tuple[int, ...], layout: torch.memory_format, data: st.DataObject
) -> None:
    world = data.draw(st.integers(1, min(batch, MAX_MICROBATCHES)))
    x = torch.rand(batch, *shape).add_(1).contiguous(memory_format=layout)
    assert torch.equal(masks(x, world), masks(x, 1))


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    x = torch.rand(64, 50, 1, 20).add_(1)
    for p in (0.2, 0.5, 0.9):
        left = masks(x, 1, p=p)
        kept = left != 0
        assert 1 - kept.float().mean().item() == pytest.approx(p, abs=0.01)
        torch.testing.assert_close(left[kept], x[kept] / (1 - p))
        by_sample = 1 - kept.flatten(1).float().mean(1)
        assert by_sample.min() > p - 0.1
        assert by_sample.max() < p + 0.1


def test_masks_of_samples_steps_layers_and_seeds_differ() -> None:
    x = torch.ones(8, 40, 1, 1)
    first = masks(x, 1)
    assert len({tuple(row.flatten().tolist()) for row in first}) == 8
    assert torch.equal(first, masks(x, 1))
    for other in (masks(x, 1, step=4), masks(x, 1, layer=2)):
        assert 0.3 < (other != first).float().mean() < 0.65
    dropout = MicroBatchDropout(0.4, 1)
    dropout.begin_step(10, 3, microbatches_of(8, 0, 1))
    assert not torch.equal(dropout(x), first)


def test_the_gradient_passes_where_the_value_does() -> None:
    x = torch.rand(16, 30, 1, 1).add_(1).requires_grad_()
    left = masks(x, 2, p=0.25)
    left.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (left.detach() != 0).float() / 0.75)


def test_nothing_is_dropped_in_evaluation_or_at_0() -> None:
    x = torch.rand(4, 3, 1, 2)
    dropout = MicroBatchDropout(0.5, 0).eval()
    assert dropout(x) is x
    assert MicroBatchDropout(0.0, 0)(x) is x


def test_a_prepared_net_has_the_weights_and_the_scores_that_it_had() -> None:
    for world in (1, 2):
        net = build("basset", CONFIG)
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.weight)
                nn.init.uniform_(norm.running_var, 0.5, 2)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        x = torch.rand(5, 4, 60)
        scores = net.eval()(x)
        layers.prepare(net, world=world)
        assert list(net.state_dict()) == list(before)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        torch.testing.assert_close(net.eval()(x), scores, rtol=0, atol=0)
        kinds = [type(layer) for layer in net.layers]
        assert nn.Dropout not in kinds
        assert kinds.count(MicroBatchDropout) == 2
        assert kinds.count(SharedBatchNorm) == (4 if world > 1 else 0)


def test_a_step_is_told_to_every_dropout() -> None:
    net = build("basset", CONFIG)
    layers.prepare(net, world=1)
    layers.begin_step(net, 1, 2, microbatches_of(6, 0, 1))
    dropouts = [layer for layer in net.layers if isinstance(layer, MicroBatchDropout)]
    x = torch.ones(6, 64, 1, 1)
    one, other = (layer(x) for layer in dropouts)
    assert not torch.equal(one, other)


def shared_norms(rank: int, world: int, cuts: list[list[int]]) -> list[dict[str, torch.Tensor]]:
    """Run one of the workers that normalise some batches, which are cut at `cuts`."""
    return [shared_norm(rank, each) for each in cuts]


def shared_norm(rank: int, cuts: list[int]) -> dict[str, torch.Tensor]:
    """Normalise part [cuts[rank], cuts[rank + 1]) of a batch, with the others."""
    x, dy, weight, bias = inputs(3, cuts[-1])
    part = slice(cuts[rank], cuts[rank + 1])
    mine = x[part].contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = SharedBatchNorm(x.shape[1])
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)
    for _ in range(2):  # twice, for the running statistics
        norm.zero_grad()
        mine.grad = None
        y = norm(mine)
        y.backward(dy[part])
    assert mine.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return {
        "y": y.detach(),
        "dx": mine.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
        "batches": norm.num_batches_tracked,
    }


def inputs(seed: int, n: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, 1, 7, generator=generator) * 3
    x += torch.tensor([0.0, 1.0, -50.0, 100.0, 0.1]).view(1, 5, 1, 1)  # means far from 0
    dy = torch.randn(n, 5, 1, 7, generator=generator)
    return x, dy, torch.randn(5, generator=generator), torch.randn(5, generator=generator)


@pytest.mark.slow
def test_shared_norm_is_torchs_on_the_whole_batch(tmp_path: Path) -> None:
    cuts = [[0, 6, 11], [0, 1, 12], [0, 8, 9]]
    by_rank = run_together(shared_norms, tmp_path, cuts, world=2)
    for number, each in enumerate(cuts):
        compare_with_torch([found[number] for found in by_rank], each[-1])


def compare_with_torch(parts: list[dict[str, torch.Tensor]], n: int) -> None:
    x, dy, weight, bias = (each.double() for each in inputs(3, n))
    norm = nn.BatchNorm2d(5).double()
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)
    x.requires_grad_()
    for _ in range(2):
        norm.zero_grad()
        x.grad = None
        y = norm(x)
        y.backward(dy)
    together = {
        "y": torch.cat([part["y"] for part in parts]),
        "dx": torch.cat([part["dx"] for part in parts]),
        "weight": sum(part["weight"] for part in parts),
        "bias": sum(part["bias"] for part in parts),
    }
    whole = {"y": y.detach(), "dx": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    for name, found in together.items():
        wanted = whole[name]
        assert wanted is not None
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=3e-5)
    for part in parts:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert part["batches"] == 2
        np.testing.assert_allclose(part["mean"].numpy(), norm.running_mean.numpy(), rtol=1e-5)
        np.testing.assert_allclose(part["var"].numpy(), norm.running_var.numpy(), rtol=1e-5)
        assert torch.equal(part["mean"], parts[0]["mean"]), "the same bits in all workers"
        assert torch.equal(part["var"], parts[0]["var"])


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """Set up a process group of one process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_shared_norm_in_evaluation_uses_what_it_has_seen(alone: None) -> None:
    norm = SharedBatchNorm(5)
    x = inputs(1, 40)[0]
    norm(x)
    norm.eval()
    plain = nn.BatchNorm2d(5)
    plain(x)
    plain.eval()
    torch.testing.assert_close(norm(x[:3]), plain(x[:3]))


def test_shared_norm_takes_bfloat16_and_computes_in_float32(alone: None) -> None:
    x, dy = inputs(2, 30)[:2]
    x.sub_(x.mean((0, 2, 3), keepdim=True))
    low = x.bfloat16().requires_grad_()
    norm, plain = SharedBatchNorm(5), nn.BatchNorm2d(5)
    y = norm(low)
    y.backward(dy.bfloat16())
    wide = low.detach().float().requires_grad_()
    twin = plain(wide)
    twin.backward(dy.bfloat16().float())
    assert y.dtype == low.grad.dtype == torch.bfloat16  # type: ignore[union-attr]
    torch.testing.assert_close(y.float(), twin, rtol=8e-3, atol=1e-3)
    torch.testing.assert_close(low.grad.float(), wide.grad, rtol=8e-3, atol=1e-3)  # type: ignore[union-attr]
    torch.testing.assert_close(norm.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-3)
