"""The nets as Kipoi defines them: 2-D with one unused axis, numbered layers and probabilities.

They are written from the published definitions and not from raygenome/models, so that tests can
compare the two.
"""

from typing import Any

import torch
from torch import nn


class Flat(nn.Module):
    """Channel-major: element (c, l) of (C, length) becomes c * length + l."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1)


def linear(inputs: int, outputs: int) -> nn.Sequential:
    """Kipoi's linear layers are the second of a pair, so that their keys end in .1."""
    return nn.Sequential(Flat(), nn.Linear(inputs, outputs))


def kipoi_deepsea(
    *, channels=(320, 480, 960), length=53, hidden=925, targets=919, dropouts=(0.2, 0.2, 0.5)
) -> nn.Sequential:
    """Input (N, 4, 1, L), channels A, G, C, T."""
    a, b, c = channels
    return nn.Sequential(
        nn.Conv2d(4, a, (1, 8)),  # 0
        nn.Threshold(0, 1e-6),
        nn.MaxPool2d((1, 4), (1, 4)),
        nn.Dropout(dropouts[0]),
        nn.Conv2d(a, b, (1, 8)),  # 4
        nn.Threshold(0, 1e-6),
        nn.MaxPool2d((1, 4), (1, 4)),
        nn.Dropout(dropouts[1]),
        nn.Conv2d(b, c, (1, 8)),  # 8
        nn.Threshold(0, 1e-6),
        nn.Dropout(dropouts[2]),
        Flat(),
        linear(c * length, hidden),  # 12
        nn.Threshold(0, 1e-6),
        linear(hidden, targets),  # 14
        nn.Sigmoid(),
    )


def kipoi_basset(
    *, channels=(300, 200, 200), length=10, hidden=(1000, 1000), targets=164, dropout=0.3
) -> nn.Sequential:
    """Input (N, 4, L, 1), channels A, C, G, T."""
    a, b, c = channels
    return nn.Sequential(
        nn.Conv2d(4, a, (19, 1)),  # 0
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.MaxPool2d((3, 1), (3, 1)),
        nn.Conv2d(a, b, (11, 1)),  # 4
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.MaxPool2d((4, 1), (4, 1)),
        nn.Conv2d(b, c, (7, 1)),  # 8
        nn.BatchNorm2d(c),
        nn.ReLU(),
        nn.MaxPool2d((4, 1), (4, 1)),
        Flat(),
        linear(c * length, hidden[0]),  # 13
        nn.BatchNorm1d(hidden[0]),
        nn.ReLU(),
        nn.Dropout(dropout),
        linear(hidden[0], hidden[1]),  # 17
        nn.BatchNorm1d(hidden[1]),
        nn.ReLU(),
        nn.Dropout(dropout),
        linear(hidden[1], targets),  # 21
        nn.Sigmoid(),
    )


def kipoi_beluga(
    *, channels=(320, 480, 640), length=106, hidden=2003, targets=2002, dropouts=(0.2, 0.2, 0.5)
) -> nn.Sequential:
    """Input (N, 4, 1, L), channels A, G, C, T."""

    def pair(inputs: int, outputs: int) -> list[nn.Module]:
        first, second = nn.Conv2d(inputs, outputs, (1, 8)), nn.Conv2d(outputs, outputs, (1, 8))
        return [first, nn.ReLU(), second, nn.ReLU()]

    def pooled(dropout: float) -> list[nn.Module]:
        return [nn.Dropout(dropout), nn.MaxPool2d((1, 4), (1, 4))]

    a, b, c = channels
    convolutions = nn.Sequential(
        *pair(4, a),  # 0, 2
        *pooled(dropouts[0]),
        *pair(a, b),  # 6, 8
        *pooled(dropouts[1]),
        *pair(b, c),  # 12, 14
    )
    rest = nn.Sequential(
        nn.Dropout(dropouts[2]),
        Flat(),
        linear(c * length, hidden),  # 2
        nn.ReLU(),
        linear(hidden, targets),  # 4
    )
    return nn.Sequential(convolutions, rest, nn.Sigmoid())


def kipoi_twin(net: Any) -> nn.Module:
    """Return the float64 Kipoi-style net of the weights of `net`: (N, 4, L) to probabilities."""
    full = net.layers.full1.weight
    sizes = {key: net.config[key] for key in ("channels", "hidden", "targets")}
    makers = {
        "DeepSEA": (kipoi_deepsea, 2),
        "Beluga": (kipoi_beluga, 2),
        "Basset": (kipoi_basset, 3),
    }
    maker, idle_axis = makers[type(net).__name__]
    twin = maker(length=full.shape[-1], **sizes)
    state = twin.state_dict()
    pairs = zip(state.items(), net.state_dict().values(), strict=True)
    twin.load_state_dict({key: value.reshape(old.shape) for (key, old), value in pairs})
    return nn.Sequential(Idle(idle_axis), twin).double().eval()


class Idle(nn.Module):
    """Adds the axis that the 2-D nets do not use."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unsqueeze(self.axis)
