"""`python jobs/bench algorithms`: measures the incremental engine's table of costs again.

The engine chooses how to compute each convolution by counting multiply-adds. It weights those of
the small transforms by `COSTS` in `raygenome/engines/incremental/algorithms.py`. This benchmark
times each convolution of the nets as a whole, and its matrix products alone. The difference is the
cost of the transforms, including the copies around them. If a value in the table is far from the
measured one, the engine may choose a slower algorithm. Its results stay correct.
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
    """Add the options of the command."""
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--blocks", type=int, help="blocks per convolution; default: a full batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each timing")


def algorithm_figures(_: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the costs, print the table and return the figures."""
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
    print(f"{options.device}, {options.precision}")
    print("mix: the cost of a transform's multiply-add, relative to a matrix product's")
    columns = ["net", "layer", "algorithm", "blocks", "products alone", "with transforms"]
    table = [_cells(row, costs.mix) for row in rows]
    table += [_cells(row, costs.head_mix) for row in heads]
    print_table([*columns, "mix", "mix in table", "algorithm if measured mix is used"], table)
    for name, value in measured.items():
        print(f"{name}: measured median {value:.2f}, in the table {getattr(costs, name)}")
    for row in heads:
        counted, measured = (_bases(row[key]) for key in ("counted", "measured"))
        print(
            f"{row['net']}: computing the head at all positions is faster {counted} by the table's"
        )
        print(f"costs, and {measured} by the measured times")
    return {"measured": measured, "table": costs._asdict(), "layers": rows, "heads": heads}


def _median(rows: list[dict[str, Any]]) -> float:
    values = [row["mix"] for row in rows if row["mix"] is not None]
    return statistics.median(values) if values else float("nan")


def _bases(spacing: int | None) -> str:
    return "nowhere" if spacing is None else f"up to 1 window in {spacing} bases"


def _cells(row: dict[str, Any], table: float) -> list[str]:
    numbers = [row["net"], row["layer"], row["algorithm"], str(row["blocks"])]
    numbers += [f"{row[key]:.2f} ms" if row[key] else "" for key in ("products", "whole")]
    numbers.append("" if row["mix"] is None else f"{row['mix']:.2f}")
    return [*numbers, str(table), row["wanted"]]


class _Bench:
    """Times convolutions on one device in one precision.

    Args:
        gemm: computes the matrix products.
        blocks: number of blocks that are multiplied together; None: as many as the engine takes.
        rounds: number of rounds of each timing.
    """

    def __init__(self, gemm: Gemm, blocks: int | None, rounds: int) -> None:
        self._gemm = gemm
        self._blocks = blocks
        self._rounds = rounds
        self._weights = WeightStore(gemm)
        self._buffers = BufferPool(gemm.device)
        self._costs = COSTS[gemm.device.type]

    def stages(self, net: str, chain: Chain) -> Iterator[dict[str, Any]]:
        """Yield the figures of each convolution except the first, which has only one algorithm."""
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
        """Return the figures of the head's first layer, and the spacing at which it is faster."""
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
        window = self._direct_ms(head)
        block = row["whole"] / row["blocks"]
        measured = self._costs._replace(head_mix=row["mix"] or self._costs.head_mix)
        wanted = choose_head_algorithm(head, measured)
        return {
            "net": net,
            "layer": "head",
            **row,
            "wanted": _words(wanted) if wanted else "as written",
            "counted": _widest_spacing(
                chain, algorithm, lambda b, w: head_pays(algorithm, head, b, w, self._costs)
            ),
            "measured": _widest_spacing(chain, algorithm, lambda b, w: b * block < w * window),
        }

    def _fast(
        self, algorithm: Bilinear, weight: torch.Tensor, bias: torch.Tensor
    ) -> dict[str, Any]:
        """Return the milliseconds of a whole convolution and of its products alone, and `mix`."""
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

    def _direct_ms(self, head: Linear) -> float:
        """Return the milliseconds per window if the head is computed by its definition."""
        _, taps, channels = head.weight.shape
        weight = self._gemm.weight(head.weight.flatten(1))
        conv = DirectConv(weight, taps, head.bias, self._gemm)
        windows = self._blocks or conv._batch
        index, store = self._inputs(taps, windows, channels)
        by_window = index.t().contiguous()
        (seconds,) = self._seconds(lambda: _run(conv(store, by_window, self._buffers)))
        return 1e3 * seconds / windows

    def _inputs(self, points: int, blocks: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an index (points, blocks) into random rows, and the rows."""
        device = self._gemm.device
        store = torch.randn(points * blocks + 1, channels, device=device)
        index = torch.arange(points * blocks, device=device).view(blocks, points).t()
        return index, store

    def _seconds(self, *works: Callable[[], None]) -> list[float]:
        """Return the median seconds of each function; they run in turn, after one warm-up each."""
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


def _widest_spacing(
    chain: Chain, algorithm: Bilinear, pays: Callable[[int, int], bool]
) -> int | None:
    """Return the widest spacing of random windows, in bases, at which the algorithm is faster."""
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
