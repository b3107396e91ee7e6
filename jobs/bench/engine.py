"""`python jobs/bench engine`: the incremental engine against the best plain forward pass.

Each row of the table is a density of variants. The plain pass and the engine are timed in turn in
one process. The figure to compare is the median of the rounds' ratios. The engine gets whole chunks
of alleles, because a long input consists of whole chunks except at its end. The whole command
(`raygenome.score`) is timed too.
"""

import argparse
import statistics
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import raygenome
from bench.inputs import (
    MODELS,
    Model,
    make_alleles,
    make_model,
    one_core,
    print_table,
    seconds_of,
    spacing,
    use_device,
    write_inputs,
)
from bench.plain import Plain, best_plain, random_windows, time_plain, windows_per_allele
from bench.work import Machine, Work, count_work, measure_machine
from raygenome.engines.choice import make_engine
from raygenome.engines.incremental import engine as incremental
from raygenome.engines.incremental.chain import Chain
from raygenome.engines.incremental.planner import plan_chain
from raygenome.genome.sequence import MemoryContig
from raygenome.genome.windows import Alleles
from raygenome.scoring.shard import Scorer

DENSITIES = ("saturation", "1/4", "1/4+indels", "1/10", "1/33", "1/100", "1/1000", "isolated")
#: The least number of windows in one timing of the plain pass.
_PLAIN_WINDOWS = {"cpu": 128, "cuda": 8192}
#: Chunks of alleles in one timing of the engine.
_CHUNKS = 2
#: The fraction of each chunk that is filled.
_FULL = 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--densities", nargs="+", type=density, default=list(DENSITIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alleles", type=int, help="alleles per density; default: two full chunks")
    parser.add_argument(
        "--whole-alleles",
        type=int,
        default=30_000,
        help="alleles for the whole command; 0: do not time it",
    )
    parser.add_argument(
        "--whole-densities",
        nargs="*",
        type=density,
        default=["1/4"],
        help="densities at which the whole command is timed",
    )


def density(text: str) -> str:
    """Return `text` if it names a density; argparse reports the error otherwise."""
    if text not in ("saturation", "isolated") and spacing(text) < 1:
        raise ValueError(text)
    return text


class Row(NamedTuple):
    """The measurements at one density; rates are in alleles per second.

    The plain pass computes two windows per allele, on both strands. `sharing` is the ratio to a
    plain pass that computes the reference window of a site once for all its ALTs.
    """

    model: str
    density: str
    alleles: int
    chunks: int
    incremental: float
    plain: float
    ratio: float
    ratios: list[float]
    sharing: float
    work: Work
    whole: dict[str, Any] | None


def engine_figures(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all densities, print the table and return the figures."""
    use_device(options.device, options.precision)
    names = ["deepsea", "basset"] if options.model == "both" else [options.model]
    rows: list[Row] = []
    with one_core() if options.device == "cpu" else nullcontext():
        machine = measure_machine(options.device, options.precision)
        for name in names:
            rows += _model_rows(folder, make_model(name), options)
    _print(rows, machine, options)
    return [{**row._asdict(), "work": row.work._asdict()} for row in rows]


def _model_rows(folder: Path, model: Model, options: argparse.Namespace) -> list[Row]:
    device, precision = options.device, options.precision
    plain, candidates = best_plain(model, device, precision, _PLAIN_WINDOWS[device])
    print(f"{model.name}: the fastest plain pass is: {plain.name}; candidates:")
    print("".join(f"    {line}\n" for line in candidates), flush=True)
    rows = []
    with closing(_make_engine(model, options)) as engine:
        for wanted in options.densities:
            row = _measure(model, engine, plain, wanted, options)
            if options.whole_alleles and wanted in options.whole_densities:
                row = row._replace(whole=_whole(folder, model, engine, row, options))
            rows.append(row)
    return rows


def _make_engine(model: Model, options: argparse.Namespace) -> Any:
    chosen = {"device": options.device, "precision": options.precision}
    return make_engine("incremental", model.net, **chosen, **model.options)


def _measure(
    model: Model, engine: Any, plain: Plain, wanted: str, options: argparse.Namespace
) -> Row:
    """Time the plain pass and the engine in turn."""
    device = options.device
    contig, alleles, chunks = sample(wanted, plan_chain(model.net), device, options.alleles)
    work = count_work(engine, alleles, contig)  # this is also the warm-up
    codes = random_windows(model, plain.windows)
    plains, rates = [], []
    for _ in range(options.rounds):
        plains.append(plain.windows / 2 / time_plain(plain, codes, device))
        rates.append(_rate(engine, alleles, contig, device))
    ratios = [rate / base for rate, base in zip(rates, plains, strict=True)]
    return Row(
        model.name,
        wanted,
        len(alleles.alt),
        chunks,
        statistics.median(rates),
        statistics.median(plains),
        statistics.median(ratios),
        ratios,
        statistics.median(ratios) * windows_per_allele(alleles) / 2,
        work,
        None,
    )


def _rate(engine: Any, alleles: Alleles, contig: MemoryContig, device: str) -> float:
    def run() -> None:
        for _ in engine.effects(alleles, contig):
            pass

    return len(alleles.alt) / seconds_of(device, run)


def sample(
    wanted: str, chain: Chain, device: str, count: int | None
) -> tuple[MemoryContig, Alleles, int]:
    """Return a genome, alleles of a density that fill the engine's chunks, and the chunk count."""
    most, most_bytes = incremental.CHUNK[device]
    if count is not None:
        contig, alleles = make_alleles(wanted, count)
        return contig, alleles, len(list(incremental.cut(alleles, chain, most, most_bytes)))
    per_base, per_window = incremental.trunk_bytes(chain)
    bytes_per_allele = min(per_base * spacing(wanted), per_window)
    per_chunk = min(most_bytes / bytes_per_allele, most)
    contig, alleles = make_alleles(wanted, int(_FULL * _CHUNKS * per_chunk))
    return contig, alleles, len(list(incremental.cut(alleles, chain, most, most_bytes)))


# --------------------------------------------------------------------------------------------
# the whole command


def _whole(
    folder: Path, model: Model, engine: Any, row: Row, options: argparse.Namespace
) -> dict[str, Any]:
    """Run the whole command between two timings of the engine; return rates and fractions."""
    contig, alleles, _ = sample(row.density, plan_chain(model.net), options.device, options.alleles)
    count = options.whole_alleles
    fasta, vcf = write_inputs(
        folder, *make_alleles(row.density, count), f"{model.name}-{row.density.replace('/', '-')}"
    )
    before = _rate(engine, alleles, contig, options.device)
    shards: list[float] = []
    with _timed_shards(shards, options.device):
        run: dict[str, Any] = {}

        def score() -> None:
            run["done"] = raygenome.score(
                vcf,
                model=model.name,
                fasta=fasta,
                out=folder / "run",
                workers=0,
                overwrite=True,
                engine="incremental",
                device=options.device,
                precision=options.precision,
            )

        total = seconds_of(options.device, score)
    use_device(options.device, options.precision)  # restore the settings, which the command changes
    rate = (before + _rate(engine, alleles, contig, options.device)) / 2
    scoring = count / sum(shards)
    return {
        "alleles": count,
        "scoring": scoring,
        "whole": count / total,
        "engine": rate,
        "share": scoring / rate,
        "wall": run["done"].document["seconds"],
    }


@contextmanager
def _timed_shards(seconds: list[float], device: str) -> Iterator[None]:
    """Record the seconds of each shard that is scored within the block."""
    score_shard = Scorer.score_shard

    def timed(self: Scorer, shard: Any) -> Any:
        receipts: list[Any] = []
        seconds.append(seconds_of(device, lambda: receipts.append(score_shard(self, shard))))
        return receipts[0]

    Scorer.score_shard = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Scorer.score_shard = score_shard  # type: ignore[method-assign]


# --------------------------------------------------------------------------------------------
# printing


def _print(rows: list[Row], machine: Machine, options: argparse.Namespace) -> None:
    clock = "CPU seconds, one core" if options.device == "cpu" else "seconds, one GPU"
    print(f"{options.precision}, both strands, random weights; {clock}; {options.rounds} rounds")
    heads = ["", "density", "alleles", "chunks", "incremental/s", "plain/s", "ratio", "(from-to)"]
    heads += ["sharing"]
    heads += ["GMAC/allele", "of matmul", "of copy", "scoring/s", "of engine", "whole/s"]
    print_table(heads, [_cells(row, machine) for row in rows])
    print(
        "ratio: incremental / plain, the median over rounds; the plain pass computes two windows\n"
        "per allele on both strands.\n"
        "sharing: the ratio to a plain pass that computes a site's reference window only once.\n"
        "of matmul, of copy: the engine's multiply-adds and bytes per second, as a fraction of a\n"
        f"large matrix product ({machine.macs / 1e9:,.0f} G/s) and a large copy "
        f"({machine.bytes / 1e9:,.1f} GB/s) on this machine.\n"
        "scoring: the shards of the whole command, from the plan to committed Parquet.\n"
        "of engine: scoring, as a fraction of the engine's rate just before and after.\n"
        "whole: the whole command, from the VCF to ranked Parquet."
    )
    for row in rows:
        if row.whole is not None:
            stages = ", ".join(f"{name} {value:.1f}" for name, value in row.whole["wall"].items())
            where = f"{row.model} at {row.density}, {row.whole['alleles']:,} alleles"
            print(f"{where}: wall seconds per stage: {stages}")


def _cells(row: Row, machine: Machine) -> list[str]:
    macs, moved = row.work.macs / row.alleles, row.work.bytes / row.alleles
    cells = [row.model, row.density, f"{row.alleles:,}", str(row.chunks)]
    cells += [f"{row.incremental:,.0f}", f"{row.plain:,.1f}", f"{row.ratio:.1f}"]
    cells.append(f"({min(row.ratios):.1f}-{max(row.ratios):.1f})")
    cells += [f"{row.sharing:.1f}", f"{macs / 1e9:.3f}"]
    cells += [f"{row.incremental * macs / machine.macs:.0%}"]
    cells += [f"{row.incremental * moved / machine.bytes:.0%}"]
    if row.whole is None:
        return [*cells, "", "", ""]
    whole = row.whole
    return [*cells, f"{whole['scoring']:,.0f}", f"{whole['share']:.0%}", f"{whole['whole']:,.0f}"]
