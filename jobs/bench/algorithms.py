"""`bench.py algorithms`: measures again what the incremental engine's table of costs says.

The engine chooses how to compute each convolution by counting multiply-adds. It weights those of
the small transforms by `COSTS` of `raygenome/engines/incremental/algorithms.py`. Here each
convolution of the nets runs as a whole, and its matrix products run alone; the difference is the
transforms, with the copies around them. A table value far from these makes the choice slow, never
wrong.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.inputs import MODELS, make_model, one_core, print_table, seconds_of, use_device
from raygenome.engines.incremental.algorithms import (
    COSTS,
    choose_algorithm,
    choose_head_algorithm,
    head_pays,
)
from raygenome.engines.incremental.bilinear import Bilinear
from raygenome.engines.incremental.buffers import BufferPool
from raygenome.engines.incremental.chain import Chain, Linear
from raygenome.engines.incremental.convolution import DirectConv, FastConv
from raygenome.engines.incremental.engine import CHUNK, trunk_bytes
from raygenome.engines.incremental.gemm import Gemm
from raygenome.engines.incremental.planner import plan_chain
from raygenome.engines.incremental.trunk import cover
from raygenome.engines.incremental.weights import WeightStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--blocks", type=int, help="of each convolution; as many as a batch holds")
    parser.add_argument("--rounds", type=int, default=5)


def forms_figures(_: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print; return the figures."""
    use_device(options.device, options.precision)
    names = ["deepsea", "basset"] if options.model == "both" else [options.model]
    with one_core(), torch.inference_mode():
        gemm = Gemm(torch.device(options.device), options.precision)
        bench = _Bench(gemm, options.blocks, options.rounds)
        chains = {name: plan_chain(make_model(name).net) for name in names}
        rows = [row for name, chain in chains.items() for row in bench.stages(name, chain)]
        heads = [bench.head(name, chain) for name, chain in chains.items()]
    costs = COSTS[options.device]
    measured = {"mix": _median(rows), "head_mix": _median(heads)}
    print(f"{options.device}, {options.precision}: a transform's multiply-add in a product's")
    columns = ["net", "layer", "algorithm", "blocks", "products alone", "with transforms"]
    table = [_cells(row, costs.mix) for row in rows]
    table += [_cells(row, costs.head_mix) for row in heads]
    print_table([*columns, "mix", "table", "algorithm by what was measured"], table)
    for name, value in measured.items():
        print(f"{name}: median {value:.2f}, in the table {getattr(costs, name)}")
    for row in heads:
        counted, measured = (_bases(row[key]) for key in ("counted", "measured"))
        print(f"{row['net']}: the head everywhere pays by count {counted}, as measured {measured}")
    return {"measured": measured, "table": costs._asdict(), "layers": rows, "heads": heads}


def _median(rows: list[dict[str, Any]]) -> float:
    values = [row["mix"] for row in rows if row["mix"] is not None]
    return statistics.median(values) if values else float("nan")


def _bases(spacing: int | None) -> str:
    return "nowhere" if spacing is None else f"to 1 window in {spacing} bases"


def _cells(row: dict[str, Any], table: float) -> list[str]:
    numbers = [row["net"], row["layer"], row["algorithm"], str(row["blocks"])]
    numbers += [f"{row[key]:.2f} ms" if row[key] else "" for key in ("products", "whole")]
    numbers.append("" if row["mix"] is None else f"{row['mix']:.2f}")
    return [*numbers, str(table), row["wanted"]]


class _Bench:
    """Times convolutions of one device and precision.

    Args:
        gemm: what multiplies.
        blocks: that are multiplied together; what the engine does where None.
        rounds: of each timing.
    """

    def __init__(self, gemm: Gemm, blocks: int | None, rounds: int) -> None:
        self._gemm = gemm
        self._blocks = blocks
        self._rounds = rounds
        self._weights = WeightStore(gemm)
        self._buffers = BufferPool(gemm.device)
        self._costs = COSTS[gemm.device.type]

    def stages(self, net: str, chain: Chain) -> Iterator[dict[str, Any]]:
        """Yield the figures of every convolution but the first, which has one algorithm."""
        for i, stage in enumerate(chain.stages[1:], 2):
            algorithm = choose_algorithm(stage, self._costs)
            weight = stage.weight.transpose(1, 2)
            row = self._fast(algorithm, weight, stage.bias)
            measured = self._costs._replace(mix=row["mix"] or self._costs.mix)
            yield {
                "net": net,
                "layer": f"stage {i}",
                **row,
                "wanted": _words(choose_algorithm(stage, measured)),
            }

    def head(self, net: str, chain: Chain) -> dict[str, Any]:
        """Return the figures of the head's first layer, and where its algorithm begins to pay."""
        head = chain.head[0]
        algorithm = choose_head_algorithm(head, self._costs)
        if algorithm is None:
            return {
                **{
                    "net": net,
                    "layer": "head",
                    "algorithm": "as written",
                    "blocks": 0,
                    "wanted": "",
                },
                **dict.fromkeys(("products", "whole", "mix", "counted", "measured")),
            }
        row = self._fast(algorithm, head.weight, head.bias)
        window = self._written(head)
        block = row["whole"] / row["blocks"]
        measured = self._costs._replace(head_mix=row["mix"] or self._costs.head_mix)
        wanted = choose_head_algorithm(head, measured)
        return {
            "net": net,
            "layer": "head",
            **row,
            "wanted": _words(wanted) if wanted else "as written",
            "counted": _last_that_pays(
                chain, algorithm, lambda b, w: head_pays(algorithm, head, b, w, self._costs)
            ),
            "measured": _last_that_pays(chain, algorithm, lambda b, w: b * block < w * window),
        }

    def _fast(
        self, algorithm: Bilinear, weight: torch.Tensor, bias: torch.Tensor
    ) -> dict[str, Any]:
        """Return milliseconds of a whole convolution and of its products alone, and `mix`."""
        spectral = self._weights.spectral("bench", algorithm, weight)
        conv = FastConv(algorithm, spectral, bias, self._gemm)
        blocks = self._blocks or conv._blocks
        index, store = self._inputs(algorithm.points, blocks, conv.channels)
        x = torch.randn(algorithm.products, blocks, conv.channels, device=store.device)

        def products() -> None:
            for q in range(algorithm.products):
                self._gemm.rows(x[q], spectral[q])

        alone, whole = self._seconds(products, lambda: _run(conv(store, index, self._buffers)))
        transforms = algorithm.points * conv.channels + algorithm.outputs * conv.outputs
        mix = (whole - alone) / transforms / (alone / (conv.channels * conv.outputs))
        return {
            "algorithm": _words(algorithm),
            "blocks": blocks,
            "products": 1e3 * alone,
            "whole": 1e3 * whole,
            "mix": mix if mix > 0 else None,
        }

    def _written(self, head: Linear) -> float:
        """Return the milliseconds of a window whose head is computed as written."""
        _, taps, channels = head.weight.shape
        weight = self._gemm.weight(head.weight.flatten(1))
        conv = DirectConv(weight, taps, head.bias, self._gemm)
        windows = self._blocks or conv._batch
        index, store = self._inputs(taps, windows, channels)
        by_window = index.t().contiguous()
        (seconds,) = self._seconds(lambda: _run(conv(store, by_window, self._buffers)))
        return 1e3 * seconds / windows

    def _inputs(self, points: int, blocks: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an index (points, blocks) into rows, and the rows."""
        device = self._gemm.device
        store = torch.randn(points * blocks + 1, channels, device=device)
        index = torch.arange(points * blocks, device=device).view(blocks, points).t()
        return index, store

    def _seconds(self, *works: Callable[[], None]) -> list[float]:
        """Return the median seconds of each, timed in turn after a first try."""
        device = self._gemm.device.type
        for work in works:
            work()
        rounds = [[seconds_of(device, work) for work in works] for _ in range(self._rounds)]
        return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _run(parts: Iterator[object]) -> None:
    for _ in parts:
        pass


def _words(algorithm: Bilinear) -> str:
    return f"{algorithm.points}/{algorithm.products}/{algorithm.outputs}"


def _last_that_pays(
    chain: Chain, algorithm: Bilinear, pays: Callable[[int, int], bool]
) -> int | None:
    """Return the widest spacing, in bases, at which the algorithm pays for random windows."""
    rng = np.random.default_rng(0)
    bases = min(CHUNK["cpu"][1] // trunk_bytes(chain)[0], 50_000)
    last = None
    for spacing in range(1, 200):
        anchors = np.unique(rng.integers(0, bases, bases // spacing))
        blocks = cover(anchors, chain.feature_stride, algorithm.outputs)
        if not pays(len(blocks), len(anchors)):
            break
        last = spacing
    return last
