"""A slow reference for the engines: it edits strings and runs nets in float64.

It shares no code with the engines. Windows are cut from edited strings and reverse-complemented
letter by letter, and the whole net runs on each of them in double precision. The module also makes
inputs of engines: alleles of all kinds, and toy nets.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from support.builders import random_bases
from torch import nn

from raygenome.genome.sequence import encode
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.models.layers import LayeredNet, conv, pool
from raygenome.registry.weights import randomise

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}

#: One allele: start (from 0), length of REF, ALT.
Case = tuple[int, int, str]


class Contig:
    """A contig in memory, as a string."""

    def __init__(self, bases: str) -> None:
        self.bases = bases

    def fetch(self, start: int, end: int) -> np.ndarray:
        return encode(slow_window(self.bases, start, end - start))


def slow_window(bases: str, begin: int, width: int) -> str:
    return "".join(bases[i] if 0 <= i < len(bases) else "N" for i in range(begin, begin + width))


def other_strand(window: str) -> str:
    return "".join(COMPLEMENT[base] for base in reversed(window))


def windows_of(bases: str, case: Case, window_spec: WindowSpec) -> tuple[str, str]:
    """Return the reference and the alternate window of one allele, by the documented rule."""
    start, ref_length, alt = case
    haplotype = bases[:start] + alt + bases[start + ref_length :]
    if window_spec.indel_mode == "symmetric":
        begin = start - window_spec.centre + (len(alt) - ref_length) // 2
    elif ref_length == 1:
        begin = start + len(alt) - (window_spec.centre + 1)
    else:
        begin = start - window_spec.centre
    return (
        slow_window(bases, start - window_spec.centre, window_spec.width),
        slow_window(haplotype, begin, window_spec.width),
    )


class Expected(NamedTuple):
    """Effects in float64 (n, targets); `changed` (n,) says whether the two windows differ."""

    diff: np.ndarray
    log_odds: np.ndarray
    changed: np.ndarray


class Oracle:
    """The net in float64; it caches its outputs for each window.

    Args:
        net: maps one-hot (N, 4, L) to logits (N, T).
        channels: its channel order.
        n_value: what its channels hold for N.
    """

    def __init__(self, net: nn.Module, channels: str, n_value: float) -> None:
        self._net = copy.deepcopy(net).double().eval()
        self._columns = {"N": np.full(4, n_value)}
        for i, base in enumerate(channels):
            self._columns[base] = np.eye(4)[i]
        self._known: dict[str, np.ndarray] = {}

    def effects(
        self,
        cases: Sequence[Case],
        bases: str,
        window_spec: WindowSpec,
        *,
        both_strands: bool = True,
    ) -> Expected:
        pairs = [windows_of(bases, case, window_spec) for case in cases]
        means = []
        for strand in range(2 if both_strands else 1):
            turned = [[other_strand(w) if strand else w for w in pair] for pair in pairs]
            ref, alt = (self._logits([pair[i] for pair in turned]) for i in range(2))
            diff = 1 / (1 + np.exp(-alt)) - 1 / (1 + np.exp(-ref))
            means.append((diff, (alt - ref) / np.log(2)))
        diff, log_odds = (np.mean(both, axis=0) for both in zip(*means, strict=True))
        return Expected(diff, log_odds, np.array([ref != alt for ref, alt in pairs]))

    def _logits(self, windows: list[str]) -> np.ndarray:
        new = sorted(set(windows) - set(self._known))
        for begin in range(0, len(new), 16):
            some = new[begin : begin + 16]
            x = np.array([[self._columns[base] for base in window] for window in some])
            with torch.inference_mode():
                logits = self._net(torch.from_numpy(x).transpose(1, 2)).numpy()
            self._known.update(zip(some, logits, strict=True))
        return np.stack([self._known[window] for window in windows])


def as_alleles(cases: Sequence[Case]) -> Alleles:
    """Return sorted cases as the `Alleles` that engines take."""
    return Alleles(
        np.array([start for start, _, _ in cases], dtype=np.int64),
        np.array([length for _, length, _ in cases], dtype=np.int64),
        [alt.encode() for _, _, alt in cases],
    )


def random_case(rng: np.random.Generator, bases: str, longest: int) -> Case:
    """Return an allele of a random kind, anywhere on the contig."""
    start = int(rng.integers(len(bases)))
    room = len(bases) - start
    length = int(rng.integers(1, longest + 1))
    ref = bases[start : start + min(length, room)].replace("N", "A")
    kind = rng.integers(8)
    if kind <= 1:
        return start, 1, random_bases(rng, 1)
    if kind == 2:  # as many bases, some the same
        return start, len(ref), random_bases(rng, len(ref))
    if kind == 3:
        return start, 1, ref[0] + random_bases(rng, length)
    if kind == 4:
        return start, len(ref), ref[0]
    if kind == 5:  # shares bases at both ends
        return start, len(ref), ref[: len(ref) // 2] + random_bases(rng, 2) + ref[-1:]
    if kind == 6:  # changes nothing
        return start, len(ref), ref
    return start, len(ref), random_bases(rng, length)


def all_alts(starts: Sequence[int]) -> list[Case]:
    """Return every single base as ALT of every start; one of the four changes nothing."""
    return [(start, 1, alt) for start in starts for alt in "ACGT"]


def with_n(bases: str, begin: int, end: int) -> str:
    return bases[:begin] + "N" * (end - begin) + bases[end:]


class StageSpec(NamedTuple):
    """One stage of a toy net."""

    channels: int
    kernel: int
    pool: int = 1
    activation: str = "relu"
    norm: bool = False
    pool_first: bool = False  # before the activation


ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "threshold": lambda: nn.Threshold(0, 1e-6, inplace=True),
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "none": nn.Identity,
}


class ToyNet(LayeredNet):
    """Any list of layers."""

    def __init__(self, layers: dict[str, nn.Module], window: int) -> None:
        super().__init__({"window": window}, layers)


def toy_net(
    stages: Sequence[StageSpec],
    *,
    features: int = 5,
    slack: int = 0,
    hidden: Sequence[int] = (6,),
    targets: int = 5,
    activation: str = "relu",
    seed: int = 0,
) -> ToyNet:
    """Return a net of random weights.

    Args:
        stages: front to back.
        features: positions that the first linear layer reads, at least.
        slack: bases that the window has more than these need.
        hidden: outputs of the linear layers but the last.
        targets: outputs of the last.
        activation: between linear layers.
        seed: of the weights.
    """
    window = features
    for stage in reversed(stages):
        window = window * stage.pool + stage.kernel - 1
    window += slack
    length, inputs = window, 4
    layers: dict[str, nn.Module] = {}
    for i, stage in enumerate(stages, 1):
        layers[f"conv{i}"] = conv(inputs, stage.channels, stage.kernel)
        if stage.norm:
            layers[f"norm{i}"] = nn.BatchNorm2d(stage.channels)
        after = [(f"act{i}", ACTIVATIONS[stage.activation]())]
        if stage.pool > 1:
            after.insert(0 if stage.pool_first else 1, (f"pool{i}", pool(stage.pool)))
        layers |= dict(after)
        layers[f"dropout{i}"] = nn.Dropout(0.2)
        inputs, length = stage.channels, (length - stage.kernel + 1) // stage.pool
    for i, outputs in enumerate(hidden, 1):
        layers[f"full{i}"] = conv(inputs, outputs, length)
        layers[f"full_act{i}"] = ACTIVATIONS[activation]()
        inputs, length = outputs, 1
    layers["output"] = conv(inputs, targets, length)
    net = ToyNet(layers, window)
    randomise(net, seed)
    return net.eval()


MONOTONE = [name for name in ACTIVATIONS if name not in ("threshold", "gelu")]


@st.composite
def stage_specs(draw: st.DrawFn) -> StageSpec:
    pool_first = draw(st.booleans())
    return StageSpec(
        channels=draw(st.integers(1, 7)),
        kernel=draw(st.integers(1, 6)),
        pool=draw(st.integers(1, 4)),
        activation=draw(st.sampled_from(MONOTONE if pool_first else list(ACTIVATIONS))),
        norm=draw(st.booleans()),
        pool_first=pool_first,
    )


@st.composite
def toy_nets(draw: st.DrawFn) -> ToyNet:
    return toy_net(
        draw(st.lists(stage_specs(), min_size=1, max_size=3)),
        features=draw(st.integers(2, 9)),
        slack=draw(st.integers(0, 5)),
        hidden=draw(st.lists(st.integers(1, 9), max_size=2)),
        targets=draw(st.integers(1, 5)),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        seed=draw(st.integers(0, 99)),
    )


def beluga_stages(channels: Sequence[int] = (6, 8, 10)) -> list[StageSpec]:
    """Return the stages of a net shaped as DeepSEA Beluga: two convolutions to a pool."""
    return [
        StageSpec(width, 8, pool)
        for width, pools in zip(channels, [(1, 4), (1, 4), (1, 1)], strict=True)
        for pool in pools
    ]
