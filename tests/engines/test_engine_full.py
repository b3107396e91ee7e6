"""The full engine against the models' definition, written out in float64 and two dimensions.

The reference below shares nothing with the program: strings are edited and reverse-complemented as
strings, one-hot rows are built letter by letter, and the nets are Kipoi-style 2-D modules that
take their weights in the published layout.
"""

import numpy as np
import pytest
import torch
from support.builders import random_bases
from support.engine_oracle import COMPLEMENT, Case, Contig, as_alleles, windows_of
from torch import nn

from raygenome.engines.full import FullEngine
from raygenome.genome.sequence import encode
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.models import build
from raygenome.registry.weights import randomise


def kipoi_deepsea(weights: dict[str, torch.Tensor]) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(4, 320, (1, 8)),
        nn.Threshold(0, 1e-6),
        nn.MaxPool2d((1, 4), (1, 4)),
        nn.Conv2d(320, 480, (1, 8)),
        nn.Threshold(0, 1e-6),
        nn.MaxPool2d((1, 4), (1, 4)),
        nn.Conv2d(480, 960, (1, 8)),
        nn.Threshold(0, 1e-6),
        nn.Flatten(),
        nn.Linear(50880, 925),
        nn.Threshold(0, 1e-6),
        nn.Linear(925, 919),
        nn.Sigmoid(),
    )
    names = {"conv1": 0, "conv2": 3, "conv3": 6, "full1": 9, "output": 11}
    return fill(net, weights, names)


def kipoi_basset(weights: dict[str, torch.Tensor]) -> nn.Module:
    def stage(inputs: int, outputs: int, kernel: int, pool: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, (kernel, 1)),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d((pool, 1), (pool, 1)),
        ]

    net = nn.Sequential(
        *stage(4, 300, 19, 3),
        *stage(300, 200, 11, 4),
        *stage(200, 200, 7, 4),
        nn.Flatten(),
        nn.Linear(2000, 1000),
        nn.BatchNorm1d(1000),
        nn.ReLU(),
        nn.Linear(1000, 1000),
        nn.BatchNorm1d(1000),
        nn.ReLU(),
        nn.Linear(1000, 164),
        nn.Sigmoid(),
    )
    names = {"conv1": 0, "conv2": 4, "conv3": 8, "full1": 13, "full2": 16, "output": 19}
    norms = {"conv1_norm": 1, "conv2_norm": 5, "conv3_norm": 9, "full1_norm": 14, "full2_norm": 17}
    return fill(net, weights, names | norms)


def fill(net: nn.Sequential, weights: dict[str, torch.Tensor], names: dict[str, int]) -> nn.Module:
    with torch.no_grad():
        for name, index in names.items():
            for key, value in net[index].state_dict().items():
                if key == "num_batches_tracked":
                    continue
                value.copy_(weights[f"layers.{name}.{key}"].reshape(value.shape))
    return net.double().eval()


def probabilities(
    net: nn.Module, window: str, channels: str, n_value: float, axis: int
) -> np.ndarray:
    rows = np.full((len(channels), len(window)), 0.0)
    for i, base in enumerate(window):
        if base == "N":
            rows[:, i] = n_value
        else:
            rows[channels.index(base), i] = 1.0
    x = torch.from_numpy(np.expand_dims(rows, axis)[None])
    with torch.no_grad():
        return net(x).numpy()[0]


def reference_diff(
    net: nn.Module, ref: str, alt: str, channels: str, n: float, axis: int
) -> np.ndarray:
    """Return the mean over strands of p_alt - p_ref, float64."""

    def p(window: str) -> np.ndarray:
        return probabilities(net, window, channels, n, axis)

    def reverse(window: str) -> str:
        return "".join(COMPLEMENT[base] for base in reversed(window))

    return ((p(alt) - p(ref)) + (p(reverse(alt)) - p(reverse(ref)))) / 2


def awkward_alleles(rng: np.random.Generator, bases: str, width: int) -> list[Case]:
    """Return (start, REF length, ALT): every kind, the contig's ends and a run of N among them."""
    middle = len(bases) // 2
    lengths = [(1, 1), (1, 1), (3, 3), (1, 7), (1, 60), (9, 1), (40, 1), (5, 2), (2, 30)]
    cases = [(middle + 17 * i, r, random_bases(rng, a)) for i, (r, a) in enumerate(lengths)]
    cases += [(0, 1, "G"), (3, 1, "ACCA"), (1, 5, "T"), (width // 3, 1, "C")]
    end = len(bases)
    cases += [(end - 1, 1, "T"), (end - 9, 8, "C"), (end - width // 4, 1, "AGAG")]
    cases += [(bases.index("N") - 20, 1, "A"), (bases.rindex("N") + 8, 1, "CT")]
    return sorted(cases)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "reference_net", "axis", "indel_mode"),
    [
        ("deepsea", kipoi_deepsea, 1, "symmetric"),
        ("basset", kipoi_basset, 2, "symmetric"),
        ("basset", kipoi_basset, 2, "left-anchor"),
    ],
)
def test_diff_equals_the_float64_definition(
    architecture: str, reference_net: object, axis: int, indel_mode: str
) -> None:
    net = build(architecture, None)
    randomise(net, 3)
    reference = reference_net(net.state_dict())  # type: ignore[operator]
    channels, n_value = net.ENCODING
    width = net.config["window"]
    rng = np.random.default_rng(11)
    bases = random_bases(rng, 1200) + "N" * 90 + random_bases(rng, 1500)
    cases = awkward_alleles(rng, bases, width)
    window_spec = WindowSpec(width, width // 2 - 1, indel_mode)
    engine = FullEngine(net, channels=channels, n_value=n_value, window_spec=window_spec, threads=2)
    (effects,) = engine.effects(as_alleles(cases), Contig(bases))

    worst = 0.0
    for row, case in enumerate(cases):
        ref, changed = windows_of(bases, case, window_spec)
        expected = reference_diff(reference, ref, changed, channels, n_value, axis)
        worst = max(worst, float(np.abs(effects.diff[row] - expected).max()))
    assert np.abs(effects.diff).max() > 1e-4, "a net that answers nothing tests nothing"
    assert worst <= 5e-6


def small_engine(channels: str = "ACGT", **options: object) -> FullEngine:
    net = build(
        "basset",
        {
            "window": 60,
            "targets": 7,
            "channels": [8, 8],
            "kernels": [5, 3],
            "pools": [3, 2],
            "hidden": [16],
        },
    )
    randomise(net, 1)
    return FullEngine(
        net, channels=channels, n_value=0.25, window_spec=WindowSpec(60, 29), **options
    )  # type: ignore[arg-type]


def random_alleles(rng: np.random.Generator, bases: str, n: int) -> Alleles:
    starts = np.sort(rng.integers(0, len(bases) - 8, n))
    lengths = rng.integers(1, 5, n)
    alts = [random_bases(rng, int(k)).encode() for k in rng.integers(1, 6, n)]
    return Alleles(starts, lengths, alts)


def joined(engine: FullEngine, alleles: Alleles, bases: str) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(engine.effects(alleles, Contig(bases)))
    return (
        np.concatenate([b.diff for b in blocks]),
        np.concatenate([b.log_odds for b in blocks]),
    )


def test_bytes_do_not_depend_on_threads_or_neighbours() -> None:
    rng = np.random.default_rng(2)
    bases = random_bases(rng, 3000)
    alleles = random_alleles(rng, bases, 700)
    whole, _ = joined(small_engine(threads=2), alleles, bases)
    one, _ = joined(small_engine(threads=1), alleles, bases)
    pieces = [joined(small_engine(), alleles.rows(i, i + 97), bases)[0] for i in range(0, 700, 97)]
    assert whole.tobytes() == one.tobytes() == np.concatenate(pieces).tobytes()


def test_an_alt_that_changes_nothing_has_no_effect() -> None:
    bases = random_bases(np.random.default_rng(4), 300)
    alleles = Alleles(np.array([100, 150]), np.array([1, 3]), [bases[100].encode(), b"A"])
    diff, log_odds = joined(small_engine(), alleles, bases)
    assert not diff[0].any()
    assert not log_odds[0].any()
    assert diff[1].any()


@pytest.mark.parametrize("channels", ["ACGT", "AGCT", "ATGC", "TCGA"])
def test_both_strands_give_the_same_for_the_reverse_complement(channels: str) -> None:
    """Scoring the other strand's genome swaps the strands, whatever the channel order."""
    rng = np.random.default_rng(8)
    bases = random_bases(rng, 400)
    other = "".join(COMPLEMENT[base] for base in reversed(bases))
    # Of an SNV the reverse window is off by one in an even window, so compare logits directly.
    engine = small_engine(channels)
    forward = engine._outputs(encode(bases[100:160])[None])
    reverse = engine._outputs(encode(other[240:300])[None])
    assert torch.equal(forward.flip(2), reverse)


def test_log_odds_is_the_log2_odds_difference() -> None:
    rng = np.random.default_rng(9)
    bases = random_bases(rng, 500)
    alleles = random_alleles(rng, bases, 20)
    engine = small_engine(both_strands=False)
    _, log_odds = joined(engine, alleles, bases)
    for row in range(20):
        case = int(alleles.start[row]), int(alleles.ref_length[row]), alleles.alt[row].decode()
        ref, alt = windows_of(bases, case, WindowSpec(60, 29))
        p_ref, p_alt = (
            torch.sigmoid(engine._outputs(encode(window)[None])[0, 0, 0].double()).numpy()
            for window in (ref, alt)
        )
        expected = np.log2(p_alt / (1 - p_alt)) - np.log2(p_ref / (1 - p_ref))
        np.testing.assert_allclose(log_odds[row], expected, atol=2e-5)


def test_bf16_is_close_but_not_the_same() -> None:
    rng = np.random.default_rng(10)
    bases = random_bases(rng, 600)
    alleles = random_alleles(rng, bases, 40)
    exact, _ = joined(small_engine(), alleles, bases)
    rough, _ = joined(small_engine(precision="bf16"), alleles, bases)
    assert 0 < np.abs(exact - rough).max() < 0.05


@pytest.mark.parametrize("threads", [2, 3, 6])
def test_bytes_do_not_depend_on_the_callers_threads(threads: int) -> None:
    """Work outside the forward pass is split between torch's threads; bytes must not change."""
    net = build(
        "basset",
        {
            "window": 60,
            "targets": 919,
            "channels": [8],
            "kernels": [5],
            "pools": [3],
            "hidden": [16],
        },
    )
    randomise(net, 1)
    bases = random_bases(np.random.default_rng(2), 3000)
    alleles = random_alleles(np.random.default_rng(3), bases, 600)
    before = torch.get_num_threads()
    found = []
    try:
        for callers in (1, threads):
            torch.set_num_threads(callers)
            engine = FullEngine(
                net, channels="ACGT", n_value=0.25, window_spec=WindowSpec(60, 29), threads=2
            )
            torch.zeros(100_000).sigmoid_()  # torch decides on its threads at first use
            found.append(joined(engine, alleles, bases)[0].tobytes())
            engine.close()
            assert torch.get_num_threads() == callers
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
