"""`python jobs/bench train`: a training worker against a training loop written by hand.

The loop by hand has all data ready in the device's memory: one-hot windows of both strands in the
net's precision, and labels as floats. It draws batches by index. It uses the same net with torch's
own dropout and batch norm, the same autocast and the same fused optimizer. The worker is the one of
`raygenome train`. It has a memory map, a loader thread, one-hot encoding on the device, dropout by
micro-batch, and a check of loss and weights every few steps. Validation and checkpoints, which
follow an epoch, are not timed.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from bench.inputs import print_table, use_device
from raygenome.datasets.batches import Samples
from raygenome.datasets.packed import Dataset, pack_labels
from raygenome.datasets.writer import PART_ROWS, DatasetWriter
from raygenome.genome.sequence import one_hot_table, reverse_complement
from raygenome.genome.targets import Target
from raygenome.models import build
from raygenome.training.config import TrainConfig, load_config, make_config
from raygenome.training.loop import Task, Worker
from raygenome.training.objective import make_optimizer
from raygenome.training.order import epoch_samples

CONFIGS = Path(__file__).parents[2] / "configs"

#: Samples of the epoch whose duration is printed: DeepSEA's 2.2 million windows on both strands.
EPOCH = 4_400_000
#: Architecture, window and number of targets of each net, and arguments that change it. The stub
#: is tiny.
NETS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "basset": ("basset", 600, 164, {}),
    "deepsea": ("deepsea", 1000, 919, {}),
    "stub": ("basset", 60, 3, {"channels": [4], "kernels": [5], "pools": [8], "hidden": [4]}),
}
#: Samples per step on a CPU, where a step of the recipe's batch would take many seconds.
_CPU_BATCH = {"basset": 64, "deepsea": 16, "stub": 8}
#: Samples and steps per epoch when one worker is compared with two, which share each batch. A large
#: batch is fair for DeepSEA: in each step, exchanging the gradients of its 53 million weights and
#: updating them costs the same for any batch.
_SHARED = {"basset": (128, 8), "deepsea": (1024, 1), "stub": (8, 8)}
_SHARED_EPOCHS, _SHARED_TURNS = 4, 2
_STEPS = {"cpu": 20, "cuda": 100}
_MATRIX = {"cpu": 2048, "cuda": 8192}
#: The least seconds of one timing of the loader.
_LOADER_S = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", choices=["basset", "deepsea", "both", "stub"], default="both")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--steps", type=int, help="steps per round; default: 20 on a CPU, 100 on a GPU"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="samples per step; default: as in the fast recipe, on a CPU fewer",
    )
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--workers-check",
        action="store_true",
        help="also compare one worker on Ray with two, one thread per worker; takes minutes",
    )


class Rates(NamedTuple):
    """The rates of one round: samples per wall second, or per CPU second (`_cpu`)."""

    plain: float
    worker: float
    plain_cpu: float
    worker_cpu: float
    tuned: float  # the worker with cuDNN's benchmark mode; 0 on a CPU
    gathered: float
    encoded: float
    matrix: float  # floating-point operations per second of a large matrix product


def train_figures(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all nets, print the table and return the figures."""
    use_device(options.device, options.precision)
    names = ["basset", "deepsea"] if options.model == "both" else [options.model]
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        rows = [_net_figures(folder / name, name, options) for name in names]
    finally:
        torch.set_num_threads(before)
    _print(rows, options)
    if options.workers_check:
        for row in rows:
            row["workers"] = workers_figures(folder / row["net"], row["net"], options)
    return rows


def _net_figures(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    batch, steps = batch_size(name, options), options.steps or _STEPS[options.device]
    recipe = bench_recipe(name, options.precision, batch, steps)
    data = make_dataset(folder / "data", name, rows=max(steps * batch, PART_ROWS))
    plain = PlainLoop(recipe, data, options.device)
    worker = Steps(recipe, data, folder / "run", options.device)
    loader_batch = load_config(_config(name)).batch_size
    rounds = []
    _warm_up(plain, worker, options.device)
    for _ in range(options.rounds):
        rounds.append(_round(plain, worker, loader_batch, options))
    flops = 6 * multiply_adds(name)
    found = {key: statistics.median(values) for key, values in _columns(rounds).items()}
    shares = [rates.worker * flops / rates.matrix for rates in rounds]
    return {
        "net": name,
        "batch": batch,
        "steps": steps,
        "loader_batch": loader_batch,
        **found,
        "ratio": _ratio(rounds, "worker", "plain"),
        "ratio_cpu": _ratio(rounds, "worker_cpu", "plain_cpu"),
        "ratio_tuned": _ratio(rounds, "tuned", "plain"),
        "rounds": [rates._asdict() for rates in rounds],
        "gathered_x": _ratio(rounds, "gathered", "plain"),
        "encoded_x": _ratio(rounds, "encoded", "plain"),
        "gflop_a_sample": flops / 1e9,
        "share": statistics.median(shares),
        "epoch_s": EPOCH / found["worker"],
    }


def _columns(rounds: list[Rates]) -> dict[str, list[float]]:
    return {key: [getattr(rates, key) for rates in rounds] for key in Rates._fields}


def _ratio(rounds: list[Rates], one: str, other: str) -> float:
    """Return the median over rounds of the ratio one / other."""
    return statistics.median(getattr(rates, one) / getattr(rates, other) for rates in rounds)


def _round(
    plain: "PlainLoop", worker: "Steps", loader_batch: int, options: argparse.Namespace
) -> Rates:
    """Time the loop by hand, the worker, the loader and the matrix product in turn."""
    device = options.device
    samples = worker.steps * worker.config.batch_size
    plain_s, plain_cpu = _seconds(device, lambda: plain.run(worker.steps))
    with _as_the_program(device):
        worker_s, worker_cpu = _seconds(device, worker.epoch)
    tuned_s = _seconds(device, worker.epoch)[0] if device == "cuda" else math.inf
    return Rates(
        samples / plain_s,
        samples / worker_s,
        samples / plain_cpu,
        samples / worker_cpu,
        samples / tuned_s,
        _loader_rate(worker, loader_batch, lambda _batch: None, device),
        _loader_rate(worker, loader_batch, worker.encoded, device),
        _matrix_rate(device, options.precision),
    )


def _warm_up(plain: "PlainLoop", worker: "Steps", device: str) -> None:
    plain.run(3)
    with _as_the_program(device):
        worker.epoch()
    if device == "cuda":
        worker.epoch()


class _as_the_program:  # noqa: N801 - a with statement reads better so
    """Turns off cuDNN's benchmark mode, as in the program; the loop by hand has it on."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> None:
        self._before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False

    def __exit__(self, *_error: object) -> None:
        torch.backends.cudnn.benchmark = self._before


def _seconds(device: str, work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall seconds and the CPU seconds of this process that `work` takes."""
    if device == "cuda":
        torch.cuda.synchronize()
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, max(time.process_time() - began_cpu, 1e-9)


def _matrix_rate(device: str, precision: str) -> float:
    """Return the floating-point operations per second of a large matrix product, at its best."""
    size = _MATRIX[device]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, y = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    tries = 3 if device == "cpu" else 20
    torch.mm(x, y)
    return 2 * size**3 / min(_seconds(device, lambda: torch.mm(x, y))[0] for _ in range(tries))


def _loader_rate(
    worker: "Steps", batch_size: int, use: Callable[[Any], object], device: str
) -> float:
    """Return the samples per second of the loader, if `use` is called with each batch."""
    rows = worker.train.n_rows
    samples = epoch_samples(0, 0, rows, strands="random")
    done, spent = 0, 0.0
    while spent < _LOADER_S:

        def load(samples: Samples = samples) -> None:
            for batch in worker.loader.batches(samples, batch_size, slice(0, batch_size)):
                use(batch)

        spent += _seconds(device, load)[0]
        done += rows // batch_size * batch_size
    return done / spent


# --------------------------------------------------------------------------------------------
# the two loops that are compared


class PlainLoop:
    """The loop by hand: one process, with all data in the device's memory."""

    def __init__(self, recipe: TrainConfig, data: Dataset, device: str) -> None:
        self._recipe, self._device = recipe, device
        config = {**recipe.net, "window": data.window_size, "targets": len(data.targets)}
        self.net = build(recipe.architecture, config).to(device).train()
        self.optimizer = make_optimizer(self.net, recipe)
        split = data.split("train")
        codes = split.codes(slice(None))
        table = torch.from_numpy(one_hot_table(*self.net.ENCODING)).to(
            torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        )
        strands = [table[torch.from_numpy(c).int()] for c in (codes, reverse_complement(codes))]
        self._windows_NLC = torch.cat(strands).to(device)
        labels = torch.from_numpy(split.labels(slice(None))).float()
        self._labels_NT = torch.cat([labels, labels]).to(device)

    def run(self, steps: int) -> float:
        """Train for `steps` steps on random batches; return the mean loss."""
        size = self._recipe.batch_size
        order = torch.randint(len(self._windows_NLC), (steps * size,), device=self._device)
        total = torch.zeros((), device=self._device)
        for index in order.split(size):
            x_NCL = self._windows_NLC[index].transpose(1, 2)
            bf16 = self._recipe.precision == "bf16"
            with torch.autocast(self._device, torch.bfloat16, enabled=bf16):
                logits = self.net(x_NCL)
            loss = functional.binary_cross_entropy_with_logits(
                logits.float(), self._labels_NT[index]
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / steps


class Steps(Worker):
    """The program's worker, without validation and checkpoint at the end of an epoch."""

    def __init__(self, recipe: TrainConfig, data: Dataset, out: Path, device: str) -> None:
        folders = data.place, str(out.absolute())
        super().__init__(Task(recipe, *folders, device, checkpoint_s=math.inf))
        self._began = self._saved = time.monotonic()

    def epoch(self) -> None:
        """Train for the steps of one epoch."""
        self._epoch()

    def encoded(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch's windows and labels, encoded on the device."""
        there = batch.to(self.device)
        return self.encoder.windows(there), self.encoder.labels(there)

    def _end_epoch(self) -> None:
        self.state.epoch, self.state.step_in_epoch, self.state.entropy = 0, 0, 0.0


# --------------------------------------------------------------------------------------------
# workers on Ray


def workers_figures(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train with one worker and with two in turn, one thread each; print and return the rates."""
    from raygenome.training.run import train

    if options.device != "cpu":
        raise SystemExit("bench: --workers-check works on a CPU only; use --device cpu")
    batch, steps = options.batch_size or _SHARED[name][0], _SHARED[name][1]
    recipe = bench_recipe(name, options.precision, batch, steps, epochs=_SHARED_EPOCHS)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(_SHARED_TURNS):
        for workers, found in rates.items():
            out = folder / f"ray-{turn}-{workers}"
            run = train(
                recipe, data=folder / "data", out=out, workers=workers, device="cpu", threads=1
            )
            found += [line["samples_per_s"] for line in run.log[1:]]  # the first is the warm-up
    one, two = (statistics.median(found) for found in rates.values())
    print(
        f"{name}, batches of {batch}, on Ray, one thread per worker: 1 worker {one:,.1f} samples/s "
        f"(best {max(rates[1]):,.1f}), 2 workers {two:,.1f} (best {max(rates[2]):,.1f}): "
        f"{two / one:.2f} times (bests {max(rates[2]) / max(rates[1]):.2f})",
        flush=True,
    )
    return {"batch": batch, "one": rates[1], "two": rates[2], "ratio": two / one}


# --------------------------------------------------------------------------------------------
# config, data and work per sample


def _config(name: str) -> Path:
    return CONFIGS / f"{NETS[name][0]}-fast.yaml"


def batch_size(name: str, options: argparse.Namespace) -> int:
    """Return the samples per step."""
    if options.batch_size is not None:
        return options.batch_size
    return _CPU_BATCH[name] if options.device == "cpu" else load_config(_config(name)).batch_size


def bench_recipe(
    name: str, precision: str, batch: int, steps: int, *, epochs: int = 1000
) -> TrainConfig:
    """Return the fast recipe of a net, reduced to what the loop by hand does."""
    return make_config(
        {
            **load_config(_config(name)).plain(),
            "net": NETS[name][3],
            # The loop by hand has a constant learning rate, and no moving average of the weights.
            "schedule": {"name": "constant"},
            "average": None,
            "prior": False,
            "precision": precision,
            "batch_size": batch,
            "epoch_samples": steps * batch,
            "epochs": epochs,
        }
    )


def make_dataset(out: Path, name: str, *, rows: int) -> Dataset:
    """Write a training split of random windows; a tenth of their labels is positive."""
    _, window, targets, _ = NETS[name]
    rng = np.random.default_rng(0)
    names = [Target(i, f"t{i}", "cell", "assay", "", "TF") for i in range(targets)]
    with DatasetWriter(out, window_size=window, targets=names, identity={}) as writer:
        for part, begin in enumerate(range(0, rows, PART_ROWS)):
            count = min(PART_ROWS, rows - begin)
            codes = rng.integers(0, 4, (count, window), dtype=np.uint8)
            labels = (rng.random((count, targets)) < 0.1).astype(np.uint8)
            writer.write("train", part, codes, pack_labels(labels))
        return writer.finish(recipe="bench", sources=[], options={}, counts={})


def multiply_adds(name: str) -> int:
    """Return the multiply-adds of a net's layers in a forward pass of one window."""
    architecture, window, targets, config = NETS[name]
    counted = 0

    def count(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.weight[0].numel()

    with torch.device("meta"):
        net = build(architecture, {**config, "window": window, "targets": targets}).eval()
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(count)
        net(torch.empty(1, 4, window))
    return counted


# --------------------------------------------------------------------------------------------
# printing


def _print(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    on_gpu = options.device == "cuda"
    where = "one GPU" if on_gpu else f"a CPU, {options.threads} threads"
    print(f"training on {where}, {options.precision}, random windows; {options.rounds} rounds")
    heads = ["", "batch", "steps", "by hand/s", "worker/s", "ratio"]
    heads += ["tuned"] if on_gpu else ["of CPU time"]
    heads += ["(from-to)", "gathered/s", "x", "encoded/s", "x"]
    heads += ["GFLOP", "TFLOP/s", "of matmul", f"{EPOCH / 1e6:.1f} M in s"]
    print_table(heads, [_cells(row, on_gpu=on_gpu) for row in rows])
    second = (
        "tuned: the same with cuDNN's benchmark mode for the worker too."
        if on_gpu
        else "of CPU time: the same by the process's CPU seconds."
    )
    batches = " and ".join(str(row["loader_batch"]) for row in rows)
    products = " and ".join(f"{row['matrix'] / 1e12:,.2f}" for row in rows)
    print(
        "by hand: a loop on one-hot windows in the device's memory.\n"
        f"ratio: worker / by hand in wall time, the median over rounds. {second}\n"
        "gathered: samples/s of the loader alone; encoded: the loader and the encoding of windows\n"
        f"and labels on the device; both in batches of {batches}; x: times by hand.\n"
        "GFLOP: per sample, 6 times the multiply-adds of a forward pass.\n"
        f"of matmul: as a fraction of a {_MATRIX[options.device]:,} x {_MATRIX[options.device]:,} "
        f"matrix product, {products} TFLOP/s here.\n"
        "Both run without the moving average of the weights that the fast recipes have.",
        flush=True,
    )


def _cells(row: dict[str, Any], *, on_gpu: bool) -> list[str]:
    one, other = ("worker", "plain") if on_gpu else ("worker_cpu", "plain_cpu")
    ratios = [found[one] / found[other] for found in row["rounds"]]
    second = row["ratio_tuned"] if on_gpu else row["ratio_cpu"]
    cells = [row["net"], f"{row['batch']:,}", f"{row['steps']:,}"]
    cells += [f"{row['plain']:,.1f}", f"{row['worker']:,.1f}", f"{row['ratio']:.3f}"]
    cells += [f"{second:.3f}", f"({min(ratios):.2f}-{max(ratios):.2f})"]
    cells += [f"{row['gathered']:,.0f}", f"{row['gathered_x']:,.0f}"]
    cells += [f"{row['encoded']:,.0f}", f"{row['encoded_x']:,.0f}"]
    rate = row["worker"] * row["gflop_a_sample"] / 1e3
    cells += [f"{row['gflop_a_sample']:.2f}", f"{rate:,.3f}", f"{row['share']:.0%}"]
    return [*cells, f"{row['epoch_s']:,.0f}"]
