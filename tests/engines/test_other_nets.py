"""A net that is no list of layers: made, saved, scored by the full engine, and trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import random_bases
from support.engine_oracle import Contig, Oracle, all_alts, as_alleles
from torch import nn

from raygenome.engines.choice import choose_engine, make_engine
from raygenome.genome.windows import WindowSpec
from raygenome.models import ARCHITECTURES, build
from raygenome.models.net import Encoding, Net
from raygenome.registry.model import Model
from raygenome.registry.registry import init_model
from raygenome.training.config import make_config
from raygenome.training.layers import prepare
from raygenome.training.objective import Objective, clip_norms, set_prior


class TwoBranches(Net):
    """Two convolutions of unlike dilation, side by side, averaged along the sequence."""

    ENCODING = Encoding("TGCA", n_value=0.25)

    def __init__(self, *, window: int = 60, targets: int = 3, channels: int = 8) -> None:
        super().__init__({"window": window, "targets": targets, "channels": channels})
        self.near = nn.Conv1d(4, channels, 5)
        self.far = nn.Conv1d(4, channels, 5, dilation=4)
        self.norm = nn.BatchNorm1d(2 * channels)
        self.dropout = nn.Dropout(0.1)
        self.last = nn.Linear(2 * channels, targets)

    def hidden(self, x_N4L: torch.Tensor) -> torch.Tensor:
        branches = [branch(x_N4L).relu().mean(dim=2) for branch in (self.near, self.far)]
        return self.dropout(self.norm(torch.cat(branches, dim=1)))

    def output(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.last(hidden)

    @property
    def output_bias(self) -> nn.Parameter:
        return self.last.bias


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "branches", f"{__name__}:TwoBranches")


@pytest.mark.usefixtures("one_thread")
def test_scored_by_the_full_engine(tmp_path: Path) -> None:
    spec = init_model("m", "branches", 1, directory=tmp_path / "m")
    assert (spec.architecture, spec.window, spec.channels) == ("branches", 60, "TGCA")
    model = Model.open(tmp_path / "m")
    why = "the net is not a plain list of layers"
    assert choose_engine("auto", model.empty_net()) == ("full", why)
    assert choose_engine("incremental", model.empty_net()) == ("full", why)

    bases = random_bases(np.random.default_rng(0), 200)
    cases = sorted([*all_alts(range(90, 95)), (100, 3, "A"), (110, 1, "ACCA")])
    window_spec = WindowSpec(spec.window, spec.centre)
    options = {"channels": spec.channels, "n_value": spec.n_value, "window_spec": window_spec}
    engine = make_engine("full", model.net(), **options)
    try:
        blocks = list(engine.effects(as_alleles(cases), Contig(bases)))
    finally:
        engine.close()
    found = np.concatenate([block.diff for block in blocks])
    expected = (
        Oracle(model.net(), spec.channels, spec.n_value).effects(cases, bases, window_spec).diff
    )
    assert np.abs(expected).max() > 1e-3
    assert np.abs(found - expected).max() < 1e-6


def test_trained_by_its_two_steps() -> None:
    torch.manual_seed(0)
    net = build("branches")
    recipe = {"architecture": "branches", "epochs": 1, "batch_size": 16}
    optimizer = {"name": "adamw", "lr": 0.01}
    l1 = {"weight": 1e-3, "on": "hidden"}
    objective = Objective(net, make_config({**recipe, "optimizer": optimizer, "l1": l1}), world=1)
    set_prior(net, np.array([1, 5, 9]), 10)
    torch.testing.assert_close(
        net.output_bias.detach(), torch.tensor([1.5 / 9.5, 1.0, 9.5 / 1.5]).log()
    )
    prepare(net, world=1)
    assert type(net.dropout).__name__ == "MicroBatchDropout"
    net.eval()
    x = torch.rand(16, 4, 60)
    objective(x, torch.ones(16, 3)).objective.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    clip_norms(net, 0.1)
    assert net.last.weight.norm(dim=1).max() <= 0.1001
