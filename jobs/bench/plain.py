"""The fastest plain pass: every window goes through the whole net, as fast as torch allows.

The baseline of the incremental engine must be as strong as possible. So the full engine's own pass
is only one of several candidates. The others run the convolutions in batches of several sizes, run
the linear layers as the fastest matrix product in separate batches, and round the weights to the
precision once instead of in each pass. All candidates are timed, and the fastest is the baseline.
It gets its windows ready made, and only computes the outputs of both strands.
"""

import copy
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.inputs import Model, seconds_of
from raygenome.engines.full import FullEngine
from raygenome.engines.incremental.gemm import Gemm
from raygenome.genome.sequence import one_hot_table, reverse_complement
from raygenome.genome.windows import Alleles

_BATCHES = {"cpu": (8, 16, 32, 64), "cuda": (128, 256, 512, 1024, 2048)}
#: Windows per batch of the linear layers, where it differs from the batch of the convolutions.
_HEAD_BATCH = {"cpu": 128, "cuda": 2048}
#: Memory layouts of the convolutions' activations, and how each is described.
_LAYOUTS = {
    "cpu": {torch.channels_last: ""},
    "cuda": {torch.channels_last: ", channels last", torch.contiguous_format: ", channels first"},
}

Pass = Callable[[np.ndarray], torch.Tensor]


class Plain(NamedTuple):
    """A plain pass: windows (n, width) to probabilities (n, 2, targets)."""

    name: str
    run: Pass
    windows: int  # per timing; a whole number of batches


def best_plain(model: Model, device: str, precision: str, windows: int) -> tuple[Plain, list[str]]:
    """Return the fastest plain pass for `windows` windows, and a line of text per candidate.

    All candidates are timed once, and the fastest three are then timed twice more in turn.
    """
    windows = -(-windows // max(_BATCHES[device])) * max(_BATCHES[device])
    codes = random_windows(model, windows)
    plains = candidates(model, device, precision, windows)
    _check(plains, codes, precision)
    seconds = {plain: [time_plain(plain, codes, device)] for plain in plains}
    finalists = sorted(plains, key=lambda plain: seconds[plain][0])[:3]
    for plain in finalists * 2:
        seconds[plain].append(time_plain(plain, codes, device))
    lines = [
        f"{windows / statistics.median(values):,.1f} windows/s: {plain.name}"
        for plain, values in seconds.items()
    ]
    return min(finalists, key=lambda plain: statistics.median(seconds[plain])), lines


def time_plain(plain: Plain, codes: np.ndarray, device: str) -> float:
    """Return the seconds that a plain pass takes for `codes`."""
    return seconds_of(device, lambda: plain.run(codes))


def random_windows(model: Model, count: int) -> np.ndarray:
    """Return random windows (count, width)."""
    return np.random.default_rng(0).integers(0, 4, (count, model.window_spec.width), dtype=np.uint8)


def windows_per_allele(alleles: Alleles) -> float:
    """Return the windows per allele of a plain pass that computes each site's REF only once."""
    return 1 + len(np.unique(alleles.start)) / len(alleles.start)


def candidates(model: Model, device: str, precision: str, windows: int) -> list[Plain]:
    """Return all candidates."""
    net = copy.deepcopy(
        model.net
    )  # FullEngine moves this copy to the device; other engines need theirs on the CPU
    engine = FullEngine(net, device=device, precision=precision, **model.options)

    def full(batch: int) -> Pass:
        def run(codes: np.ndarray) -> torch.Tensor:
            engine._batch = batch
            return engine._outputs(codes)[:, 1]

        return run

    plains = [Plain(f"full engine, batch {n}", full(n), windows) for n in _BATCHES[device]]
    for layout, layout_name in _LAYOUTS[device].items():
        split = _SplitBatches(model, Gemm(torch.device(device), precision), layout)
        for batch in _BATCHES[device]:
            for head in dict.fromkeys([batch, _HEAD_BATCH[device]]):
                convs = f"convolutions {batch} at once{layout_name}"
                name = f"{convs}, linear layers {head} by the fastest product"
                plains.append(Plain(name, split.make_pass(batch, head), windows))
    return plains


def _check(plains: list[Plain], codes: np.ndarray, precision: str) -> None:
    """Check that all candidates compute the same outputs; this is also their warm-up."""
    tolerance = 1e-4 if precision == "fp32" else 0.05
    with torch.inference_mode():
        wanted = plains[0].run(codes)
        for plain in plains[1:]:
            torch.testing.assert_close(plain.run(codes), wanted, rtol=0, atol=tolerance)


class _SplitBatches:
    """The net with separate batch sizes for its convolutions and its linear layers.

    Batch norms are folded into the layers before them, and pools run before activations.
    """

    def __init__(self, model: Model, gemm: Gemm, layout: torch.memory_format) -> None:
        self._device = gemm.device
        self._gemm = gemm
        self._layout = layout
        layers = _simplified(model.net)
        first = next(i for i, (name, _) in enumerate(layers) if name.startswith("full"))
        self._convs = nn.Sequential(*(layer for _, layer in layers[:first]))
        self._convs.to(gemm.device, gemm.dtype).to(memory_format=layout)  # type: ignore[call-overload]
        self._head = [self._head_layer(layer) for _, layer in layers[first:]]
        table = one_hot_table(model.options["channels"], model.options["n_value"])
        self._table = torch.from_numpy(table).to(gemm.device, gemm.dtype)

    def _head_layer(self, layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        if not isinstance(layer, nn.Conv2d):
            return layer
        # (outputs, channels, 1, length) to columns in the order of channels-last features.
        columns = layer.weight.detach()[:, :, 0].transpose(1, 2).flatten(1)
        weight = self._gemm.weight(columns)
        assert layer.bias is not None
        bias = layer.bias.detach().to(self._device)
        return lambda x: self._gemm.rows(x, weight, bias)

    def make_pass(self, batch: int, head_batch: int) -> Pass:
        """Return the pass with these batch sizes."""

        @torch.inference_mode()
        def run(codes: np.ndarray) -> torch.Tensor:
            strands = [self._strand(codes, batch, head_batch)]
            strands.append(self._strand(reverse_complement(codes), batch, head_batch))
            return torch.stack(strands, dim=1)

        return run

    def _strand(self, codes: np.ndarray, batch: int, head_batch: int) -> torch.Tensor:
        out = []
        windows = torch.from_numpy(np.ascontiguousarray(codes)).to(self._device)
        for some in windows.split(head_batch):
            x = torch.cat([self._features(part) for part in some.split(batch)])
            for layer in self._head:
                x = layer(x)
            out.append(torch.sigmoid(x))
        return torch.cat(out)

    def _features(self, codes: torch.Tensor) -> torch.Tensor:
        x = self._table[codes.long()].transpose(1, 2).unsqueeze(2)
        x = self._convs(x.contiguous(memory_format=self._layout))
        return x.permute(0, 2, 3, 1).flatten(1)


def _simplified(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return copies of the net's layers, changed to compute the same with fewer operations."""
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in copy.deepcopy(net.layers).eval().named_children():  # type: ignore[union-attr]
        if isinstance(layer, nn.Dropout):
            continue
        if isinstance(layer, nn.BatchNorm2d):
            conv_name, conv = layers[-1]
            layers[-1] = (conv_name, fuse_conv_bn_eval(conv, layer))  # type: ignore[type-var]
        elif isinstance(layer, nn.MaxPool2d):
            layers.insert(-1, (name, layer))  # allowed, as all activations are monotone
        else:
            layers.append((name, layer))
    return layers
