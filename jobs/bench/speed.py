"""`python jobs/bench speed`: the overhead of the program itself, with plain forward passes.

The whole command with `--engine full` is compared with a loop that a competent user would write
with the same net, and with the net's forward passes alone.
"""

import argparse
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import cyvcf2
import numpy as np
import pyfaidx
import torch
from torch import nn

import raygenome
from bench.inputs import MODELS, Model, make_model, one_core, spaced_snvs, write_inputs
from bench.plain import random_windows
from raygenome.engines.full import FullEngine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", choices=list(MODELS), default="basset")
    parser.add_argument("--variants", type=int, default=1000, help="number of SNVs")
    parser.add_argument("--spacing", type=int, default=35, help="bases between variants")
    parser.add_argument("--rounds", type=int, default=3)


def speed_figures(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Time the forward pass, the whole command and the plain loop in turn, on one core."""
    model = make_model(options.model)
    sample = spaced_snvs(options.variants, options.spacing)
    fasta, vcf = write_inputs(folder, *sample, str(options.variants))
    names = ("plain loop", "forward pass alone", "whole command")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    outside: list[float] = []
    with one_core():
        for _ in range(options.rounds):
            seconds["plain loop"].append(plain_loop(model, fasta, vcf))
            seconds["forward pass alone"].append(forward_alone(model, options.variants))
            total, forward = whole_command(folder, options.model, fasta, vcf)
            seconds["whole command"].append(total)
            outside.append(1 - forward / total)
    print(
        f"{options.model}, {options.variants} SNVs, both strands, one core, fp32; every window "
        "goes through the whole net"
    )
    return _print(options.variants, seconds, statistics.median(outside))


def _print(variants: int, seconds: dict[str, list[float]], outside: float) -> dict[str, object]:
    print(f"{'':22}{'variants/s':>12}{'x plain loop':>14}")
    figures: dict[str, object] = {}
    for name, values in seconds.items():
        rate = variants / statistics.median(values)
        ratio = statistics.median(
            plain / value for plain, value in zip(seconds["plain loop"], values, strict=True)
        )
        figures[name] = {"variants_per_second": round(rate, 1), "ratio": round(ratio, 2)}
        print(f"{name:22}{rate:>12,.1f}{ratio:>14.2f}")
    figures["outside the forward pass"] = round(outside, 4)
    print(f"outside the forward pass: {100 * outside:.1f} % of the whole command's time")
    return figures


def forward_alone(model: Model, variants: int) -> float:
    """Return the seconds that the net needs for a REF and an ALT window of each variant."""
    with closing(FullEngine(model.net, **model.options)) as engine:
        codes = random_windows(model, 2 * variants)
        engine._outputs(codes[:32])
        began = time.perf_counter()
        for begin in range(0, len(codes), 1024):
            engine._outputs(codes[begin : begin + 1024])
        return time.perf_counter() - began


def whole_command(folder: Path, model: str, fasta: Path, vcf: Path) -> tuple[float, float]:
    """Return the seconds of a whole run in this process, and of the net within it."""
    inside = 0.0
    forward = FullEngine._forward

    def timed(self: FullEngine, codes: object) -> object:
        nonlocal inside
        began = time.perf_counter()
        result = forward(self, codes)  # type: ignore[arg-type]
        inside += time.perf_counter() - began
        return result

    FullEngine._forward = timed  # type: ignore[assignment,method-assign]
    try:
        began = time.perf_counter()
        raygenome.score(
            vcf,
            model=model,
            fasta=fasta,
            out=folder / "run",
            workers=0,
            overwrite=True,
            engine="full",
        )
        return time.perf_counter() - began, inside
    finally:
        FullEngine._forward = forward  # type: ignore[method-assign]


def plain_loop(model: Model, fasta: Path, vcf: Path) -> float:
    """Return the seconds of a loop that a competent user would write with the same net.

    It uses cyvcf2, pyfaidx, a look-up table for one-hot, and `Conv1d` in batches of 64; it scores
    both strands.
    """
    plain = as_conv1d(model.net)
    table = np.zeros((256, 4), dtype=np.float32)
    for channel, base in enumerate(model.options["channels"]):
        table[ord(base), channel] = 1
    left, width = model.window_spec.centre, model.window_spec.width
    began = time.perf_counter()
    genome = pyfaidx.Fasta(str(fasta), as_raw=True, sequence_always_upper=True)
    diffs: list[np.ndarray] = []
    batch: list[np.ndarray] = []

    def flush() -> None:
        windows = torch.from_numpy(table[np.stack(batch)].transpose(0, 2, 1).copy())
        with torch.inference_mode():
            p = torch.sigmoid(plain(windows)) + torch.sigmoid(plain(windows.flip(1, 2)))
        diffs.append(((p[1::2] - p[0::2]) / 2).numpy())
        batch.clear()

    for variant in cyvcf2.VCF(str(vcf)):
        start = variant.POS - 1 - left
        ref = np.frombuffer(genome[variant.CHROM][start : start + width].encode(), np.uint8)
        alt = ref.copy()
        alt[left] = ord(variant.ALT[0])
        batch += [ref, alt]
        if len(batch) == 64:
            flush()
    if batch:
        flush()
    np.concatenate(diffs)
    return time.perf_counter() - began


def as_conv1d(net: Any) -> nn.Module:
    """Return the same net as plain `Conv1d`, `BatchNorm1d`, `MaxPool1d` and `Linear` layers."""
    layers: list[nn.Module] = []
    flat = False
    for name, layer in net.layers.named_children():
        if isinstance(layer, nn.Conv2d) and (name.startswith("full") or name == "output"):
            if not flat:
                layers.append(nn.Flatten())
                flat = True
            twin: nn.Module = nn.Linear(layer.weight[0].numel(), layer.out_channels)
        elif isinstance(layer, nn.Conv2d):
            twin = nn.Conv1d(layer.in_channels, layer.out_channels, layer.kernel_size[1])
        elif isinstance(layer, nn.BatchNorm2d):
            twin = nn.BatchNorm1d(layer.num_features)
        elif isinstance(layer, nn.MaxPool2d):
            twin = nn.MaxPool1d(layer.kernel_size[1])  # type: ignore[index]
        else:
            layers.append(layer)
            continue
        state = layer.state_dict()
        twin.load_state_dict(
            {key: state[key].reshape(value.shape) for key, value in twin.state_dict().items()}
        )
        layers.append(twin)
    plain = nn.Sequential(*layers).eval()
    x = torch.nn.functional.one_hot(torch.randint(0, 4, (2, net.config["window"])), 4)
    x = x.float().transpose(1, 2)
    with torch.inference_mode():  # the comparison is fair only if both nets are the same
        torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-4)
    return plain
