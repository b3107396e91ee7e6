"""Measure raygenome, and print the tables that README and docs/ quote.

    python jobs/bench engine                           incremental engine, plain pass, whole command
    python jobs/bench engine --model deepsea --densities 1/4 1/33
    python jobs/bench exact                            errors of the engines against float64
    python jobs/bench algorithms                       the engine's table of costs, measured again
    python jobs/bench engine-memory                    memory of a worker, with shared weights
    python jobs/bench speed --model basset             whole command against a plain loop
    python jobs/bench train --workers-check            training against a loop written by hand
    python jobs/bench memory                           peak memory for 1e4 to 1e6 records
    python jobs/bench scale --quick                    how driver, planning and ranking scale
    python jobs/bench cost --dollars-per-hour 2.5      hours, dollars and bytes for gnomAD

All inputs are synthetic and made at the start, so that anyone can run it. The machine may be noisy.
So things that are compared are timed in turn, several times, on one core. Compare the medians of
the ratios: absolute rates depend on what else runs on the machine. `--json` prints the figures as
JSON after the table.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """One command. Its module is imported only when it runs, as it may need more packages.

    Attributes:
        about: what it prints; its help text.
        module: name of its module.
        add_arguments: name of the function that adds its options to a parser.
        figures: name of the function that measures, given a temporary folder and the options; it
            prints the table and returns the figures.
    """

    about: str
    module: str
    add_arguments: str
    figures: str


COMMANDS = {
    "engine": Command(
        "variants/s of the incremental engine by density of variants, against the best plain pass",
        "bench.engine",
        "add_arguments",
        "engine_figures",
    ),
    "exact": Command(
        "errors of both engines against float64",
        "bench.exact",
        "add_arguments",
        "exact_figures",
    ),
    "algorithms": Command(
        "the table of costs by which the engine chooses algorithms, measured again",
        "bench.algorithms",
        "add_arguments",
        "algorithm_figures",
    ),
    "engine-memory": Command(
        "peak memory of a worker by density of variants, and of the weights that workers share",
        "bench.memory",
        "add_engine_arguments",
        "engine_memory_figures",
    ),
    "speed": Command(
        "variants/s of the whole command, against a plain loop",
        "bench.speed",
        "add_arguments",
        "speed_figures",
    ),
    "train": Command(
        "samples/s of a training worker, against a loop written by hand",
        "bench.train",
        "add_arguments",
        "train_figures",
    ),
    "memory": Command(
        "peak memory of planning, a worker and ranking, by input size",
        "bench.memory",
        "add_memory_arguments",
        "memory_figures",
    ),
    "scale": Command(
        "time and memory of the driver, scheduling, planning and ranking, extrapolated to gnomAD",
        "bench.scale",
        "add_arguments",
        "scale_figures",
    ),
    "cost": Command(
        "hours, dollars and bytes to score gnomAD, from measured rates",
        "bench.cost",
        "add_arguments",
        "cost_figures",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the command line names."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        inner = parsers.add_parser(name, help=command.about, description=command.about)
        if name in arguments[:1]:
            getattr(importlib.import_module(command.module), command.add_arguments)(inner)
        inner.add_argument("--json", action="store_true", help="print the figures as JSON too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYGENOME_HOME"] = f"{folder}/home"
        command = COMMANDS[options.command]
        figures = getattr(sys.modules[command.module], command.figures)(Path(folder), options)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
