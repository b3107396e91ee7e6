"""Measures raygenome and prints the tables that README and the notes quote.

    python jobs/bench engine                           incremental engine, plain pass, command
    python jobs/bench engine --model deepsea --densities 1/4 1/33
    python jobs/bench exact                            errors against float64
    python jobs/bench algorithms                       the table of costs, measured again
    python jobs/bench engine-memory                    a worker's memory, weights shared or not
    python jobs/bench speed --model basset             forward pass, whole command, a plain loop
    python jobs/bench train --workers-check            a worker, a loop by hand, two workers
    python jobs/bench memory                           a worker's peak memory, 1e4 to 1e6 records
    python jobs/bench scale --quick                    driver, workers, planning, ranking: growth
    python jobs/bench cost --dollars-per-hour 2.5      gnomAD on 1, 8, 64 workers: hours, bytes

Everything is synthetic and made on the spot, so that anyone can run it. The machine may be noisy:
what is compared is timed in turn, several times, on one core, and the medians of the ratios are
what counts; an absolute rate is only as good as the moment. `--json` prints the figures as JSON
after the table.
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
    """A measurement; its module is imported when it is asked for, and needs what it measures.

    Attributes:
        about: what it prints.
        module: where its functions are.
        add_arguments: says what it takes.
        figures: does it in a folder, and returns the figures.
    """

    about: str
    module: str
    add_arguments: str
    figures: str


COMMANDS = {
    "engine": Command(
        "variants/s of the incremental engine by density, against the best plain pass",
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
        "the table of costs that chooses algorithms, measured again",
        "bench.algorithms",
        "add_arguments",
        "forms_figures",
    ),
    "engine-memory": Command(
        "peak memory of a worker, by density, and the weights that workers share",
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
        "samples/s of a training worker, against a loop by hand, and of two workers",
        "bench.train",
        "add_arguments",
        "train_figures",
    ),
    "memory": Command(
        "peak memory of a worker, by input size",
        "bench.memory",
        "add_memory_arguments",
        "memory_figures",
    ),
    "scale": Command(
        "what the driver, the handing out, planning and ranking take, and of gnomAD would take",
        "bench.scale",
        "add_arguments",
        "scale_figures",
    ),
    "cost": Command(
        "hours, dollars and bytes of gnomAD, from measured rates",
        "bench.cost",
        "add_arguments",
        "cost_figures",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line names."""
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
