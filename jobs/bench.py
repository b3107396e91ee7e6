"""Measures raygenome and prints the tables that README and the notes quote.

    python jobs/bench.py speed --model basset             forward pass, whole command, a plain loop
    python jobs/bench.py speed --model deepsea --variants 300
    python jobs/bench.py memory                           a worker's peak memory, 1e4 to 1e6 records

Everything is synthetic and made on the spot, so that anyone can run it. The machine may be noisy:
what is compared is timed in turn, several times, on one core, and the medians of the ratios are
what counts; an absolute rate is only as good as the moment. `--json` prints the figures as JSON.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="variants/s, against a plain loop")
    speed.add_argument("--model", choices=["basset", "deepsea"], default="basset")
    speed.add_argument("--variants", type=int, default=1000)
    speed.add_argument("--spacing", type=int, default=35, help="bases between variants")
    speed.add_argument("--rounds", type=int, default=3)
    memory = commands.add_parser("memory", help="peak memory of a worker, by input size")
    memory.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    for command in (speed, memory):
        command.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYGENOME_HOME"] = f"{folder}/home"
        if options.command == "speed":
            figures = speed_figures(Path(folder), options)
        else:
            figures = memory_figures(Path(folder), options.records)
    if options.json:
        print(json.dumps(figures, indent=1))


# --------------------------------------------------------------------------------------------
# inputs


def write_inputs(folder: Path, records: int, spacing: int, seed: int = 0) -> tuple[Path, Path]:
    """Write a random genome and a VCF of sorted SNVs on it, one each `spacing` bases."""
    rng = np.random.default_rng(seed)
    genome = rng.choice(BASES, records * spacing + 4000)
    fasta = folder / f"genome-{records}.fa"
    lines = np.array_split(genome[: len(genome) // 60 * 60].reshape(-1, 60), 100)
    with fasta.open("wb") as handle:
        handle.write(b">chr1\n")
        for block in lines:
            handle.write(b"\n".join(row.tobytes() for row in block) + b"\n")
    starts = 2000 + np.arange(records) * spacing + rng.integers(0, spacing, records)
    refs = genome[starts]
    alts = BASES[(np.searchsorted(BASES, refs) + rng.integers(1, 4, records)) % 4]
    vcf = folder / f"variants-{records}.vcf"
    with vcf.open("w") as handle:
        handle.write(f"##fileformat=VCFv4.3\n##contig=<ID=chr1,length={len(genome)}>\n")
        handle.write('##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">\n')
        handle.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for start, ref, alt in zip(starts.tolist(), refs.tolist(), alts.tolist(), strict=True):
            handle.write(f"chr1\t{start + 1}\t.\t{ref:c}\t{alt:c}\t.\tPASS\tAC=1\n")
    return fasta, vcf


# --------------------------------------------------------------------------------------------
# speed


def speed_figures(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Time the forward pass, the whole command and the plain loop in turn, on one core."""
    import torch

    from raygenome.registry import registry

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    fasta, vcf = write_inputs(folder, options.variants, options.spacing)
    registry.init_model(options.model, options.model, 0)

    def whole() -> float:
        return whole_command(folder, options.model, fasta, vcf)[0]

    timed: dict[str, Callable[[], float]] = {
        "plain loop": lambda: plain_loop(options.model, fasta, vcf),
        "forward pass alone": lambda: forward_alone(options.model, options.variants),
        "whole command": whole,
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    outside: list[float] = []
    for _ in range(options.rounds):
        for name, run in timed.items():
            if name == "whole command":
                total, forward = whole_command(folder, options.model, fasta, vcf)
                seconds[name].append(total)
                outside.append(1 - forward / total)
            else:
                seconds[name].append(run())
    print(f"{options.model}, {options.variants} SNVs, both strands, one core, fp32")
    print(f"{'':22}{'variants/s':>12}{'x plain loop':>14}")
    figures: dict[str, object] = {}
    for name, values in seconds.items():
        rate = options.variants / statistics.median(values)
        ratio = statistics.median(
            plain / value for plain, value in zip(seconds["plain loop"], values, strict=True)
        )
        figures[name] = {"variants_per_second": round(rate, 1), "ratio": round(ratio, 2)}
        print(f"{name:22}{rate:>12,.1f}{ratio:>14.2f}")
    share = statistics.median(outside)
    figures["outside the forward pass"] = round(share, 4)
    print(f"outside the forward pass: {100 * share:.1f} % of the whole command's time")
    return figures


def forward_alone(model: str, variants: int) -> float:
    """Return the seconds that the net needs for a REF and an ALT window of each variant."""
    from raygenome.engines.full import FullEngine
    from raygenome.genome.windows import Frame
    from raygenome.registry import registry

    net, spec = registry.load_model(registry.resolve(model))
    frame = Frame(spec.window, spec.centre)
    engine = FullEngine(net, channels=spec.channels, n_value=spec.n_value, frame=frame)
    codes = np.random.default_rng(0).integers(0, 4, (2 * variants, spec.window), dtype=np.uint8)
    engine._outputs(codes[:32])
    began = time.perf_counter()
    for begin in range(0, len(codes), 1024):
        engine._outputs(codes[begin : begin + 1024])
    return time.perf_counter() - began


def whole_command(folder: Path, model: str, fasta: Path, vcf: Path) -> tuple[float, float]:
    """Return the seconds of a whole run in this process, and those spent in the net."""
    import raygenome
    from raygenome.engines.full import FullEngine

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
            vcf, model=model, fasta=fasta, out=folder / "run", workers=0, overwrite=True
        )
        return time.perf_counter() - began, inside
    finally:
        FullEngine._forward = forward  # type: ignore[method-assign]


def plain_loop(model: str, fasta: Path, vcf: Path) -> float:
    """Return the seconds of the loop that a competent user would write with the same net.

    cyvcf2 and pyfaidx, one-hot by a look-up table, `Conv1d` in batches of 64, both strands.
    """
    import cyvcf2
    import pyfaidx
    import torch

    from raygenome.registry import registry

    net, spec = registry.load_model(registry.resolve(model))
    plain = as_conv1d(net)
    table = np.zeros((256, 4), dtype=np.float32)
    for channel, base in enumerate(spec.channels):
        table[ord(base), channel] = 1
    left, width = spec.centre, spec.window
    began = time.perf_counter()
    genome = pyfaidx.Fasta(str(fasta), as_raw=True, sequence_always_upper=True)
    diffs, batch = [], []

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


def as_conv1d(net: object) -> object:
    """Return the same net as plain `Conv1d`, `BatchNorm1d`, `MaxPool1d` and `Linear` layers."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    flat = False
    for name, layer in net.layers.named_children():  # type: ignore[attr-defined]
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
            twin = nn.MaxPool1d(layer.kernel_size[1])
        else:
            layers.append(layer)
            continue
        state = layer.state_dict()
        twin.load_state_dict(
            {key: state[key].reshape(value.shape) for key, value in twin.state_dict().items()}
        )
        layers.append(twin)
    plain = nn.Sequential(*layers).eval()
    x = torch.nn.functional.one_hot(torch.randint(0, 4, (2, net.config["window"])), 4)  # type: ignore[attr-defined]
    x = x.float().transpose(1, 2)
    with torch.inference_mode():  # a twin that is another net would be a strawman
        torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-4)  # type: ignore[operator]
    return plain


# --------------------------------------------------------------------------------------------
# memory


def memory_figures(folder: Path, sizes: list[int]) -> dict[str, object]:
    """Score inputs of growing size with a net that costs nothing; print each process's peak."""
    from raygenome.registry import registry

    config = {
        "window": 600,
        "targets": 20,
        "channels": [4],
        "kernels": [5],
        "pools": [50],
        "hidden": [4],
    }
    registry.init_model("stub", "basset", 0, config=config)
    print(f"{'records':>10}{'plan MiB':>12}{'worker MiB':>12}{'rank MiB':>12}{'seconds':>10}")
    figures = {}
    for records in sizes:
        fasta, vcf = write_inputs(folder, records, 20)
        out = folder / f"run-{records}"
        began = time.perf_counter()
        peaks = [apart(step, str(fasta), str(vcf), str(out)) for step in (_plan, _work, _rank)]
        seconds = time.perf_counter() - began
        figures[str(records)] = dict(zip(("plan", "worker", "rank"), peaks, strict=True))
        shown = "".join(f"{peak:>12,.0f}" for peak in peaks)
        print(f"{records:>10,}{shown}{seconds:>10,.1f}", flush=True)
    return figures


def apart(step: Callable[[str, str, str], None], *arguments: str) -> float:
    """Return the peak memory, in MiB, of `step` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (step, arguments))


def _peak(step: Callable[..., None], arguments: tuple[str, ...]) -> float:
    step(*arguments)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _inputs(fasta: str, vcf: str):  # type: ignore[no-untyped-def]
    from raygenome.scoring.inputs import open_inputs
    from raygenome.scoring.options import ScoreOptions

    return open_inputs(vcf, "stub", fasta, ScoreOptions(shard_size=8192, top_n=100))


def _plan(fasta: str, vcf: str, out: str) -> None:
    from raygenome.results.rundir import RunDir
    from raygenome.scoring.plan import commit_plan, make_plan

    inputs = _inputs(fasta, vcf)
    run = RunDir(Path(out))
    make_plan(vcf, inputs.reference, inputs.plan_options(), run)
    commit_plan(run, {})


def _work(fasta: str, vcf: str, out: str) -> None:
    from raygenome.results.rundir import RunDir
    from raygenome.scoring.plan import load_plan
    from raygenome.scoring.scorer import Scorer

    run = RunDir(Path(out))
    scorer = Scorer(_inputs(fasta, vcf).scorer_config(run, {}, threads=1))
    plan = load_plan(run)
    assert plan is not None
    for shard in plan.shards:
        scorer.score_shard(shard)


def _rank(fasta: str, vcf: str, out: str) -> None:
    from raygenome.results.rundir import RunDir
    from raygenome.scoring import run as story
    from raygenome.scoring.plan import load_plan

    run = RunDir(Path(out))
    plan = load_plan(run)
    assert plan is not None
    receipts = [receipt for _, receipt in sorted(run.committed().items())]
    story._rank(run, plan, _inputs(fasta, vcf), receipts)


if __name__ == "__main__":
    main()
