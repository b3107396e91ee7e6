"""`python jobs/bench exact`: the error of each engine's `diff` against the same net in float64.

For the exact values, each window is built base by base, and the net runs on it in double precision
on both strands. The alleles are SNVs, MNVs, and insertions and deletions of up to 300 bases, on a
random genome with a run of N.
"""

import argparse
import copy
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.inputs import MODELS, Model, make_model, one_core, print_table, random_alleles
from raygenome.engines.choice import make_engine
from raygenome.genome.sequence import MemoryContig, one_hot_table, reverse_complement
from raygenome.genome.windows import Alleles, alternate_windows, reference_windows

ENGINES = [(name, precision) for precision in ("fp32", "bf16") for name in ("full", "incremental")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--alleles", type=int, default=128, help="number of alleles")


def exact_figures(_: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the errors, print the table and return the figures."""
    names = ["deepsea", "basset"] if options.model == "both" else [options.model]
    contig, alleles = random_alleles(options.alleles)
    with one_core():
        figures = [row for name in names for row in _errors(make_model(name), contig, alleles)]
    print(f"{options.alleles} alleles, both strands: absolute error of diff against float64")
    heads = ["", "engine", "precision", "largest error", "mean error", "largest diff", "mean diff"]
    print_table(heads, [_cells(row) for row in figures])
    return figures


def _cells(row: dict[str, Any]) -> list[str]:
    numbers = [row[name] for name in ("largest error", "mean error", "largest diff", "mean diff")]
    return [row["model"], row["engine"], row["precision"], *(f"{x:.2g}" for x in numbers)]


def _errors(model: Model, contig: MemoryContig, alleles: Alleles) -> Iterator[dict[str, Any]]:
    true = exact_diff(model, contig, alleles)
    for name, precision in ENGINES:
        net = copy.deepcopy(model.net)
        made = make_engine(name, net, precision=precision, **model.options)
        with closing(made) as engine:
            diff = np.concatenate([block.diff for block in engine.effects(alleles, contig)])
        error = np.abs(diff - true)
        yield {
            "model": model.name,
            "engine": name,
            "precision": precision,
            "largest error": float(error.max()),
            "mean error": float(error.mean()),
            "largest diff": float(np.abs(true).max()),
            "mean diff": float(np.abs(true).mean()),
        }


def exact_diff(model: Model, contig: MemoryContig, alleles: Alleles) -> np.ndarray:
    """Return `diff` by its definition, float64 (n, targets), from each window in full."""
    starts, of = np.unique(alleles.start, return_inverse=True)
    reference = reference_windows(starts, model.window_spec, contig)
    alternate = alternate_windows(alleles, reference[of], model.window_spec, contig)
    net = copy.deepcopy(model.net).double().eval()
    table = one_hot_table(model.options["channels"], model.options["n_value"])
    lookup = torch.from_numpy(table).double()

    def mean_probability(windows: np.ndarray) -> np.ndarray:
        out = []
        for begin in range(0, len(windows), 16):
            strands = np.stack([w := windows[begin : begin + 16], reverse_complement(w)])
            x = lookup[torch.from_numpy(strands).long()].flatten(0, 1).transpose(1, 2)
            with torch.inference_mode():
                p = torch.sigmoid(net(x)).view(2, len(w), -1)
            out.append(p.mean(dim=0).numpy())
        return np.concatenate(out)

    return mean_probability(alternate) - mean_probability(reference)[of]
