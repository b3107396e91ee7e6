"""Train with several configs on the same data, and compare how fast each reaches the first's loss.

    python jobs/experiments/compare_recipes.py --data DIR --out DIR \
        configs/basset.yaml configs/basset-fast.yaml

Seconds are taken from log.jsonl and include validation. For each config after the first, the table
says how long it took until its validation loss was as low as the lowest of the first config. OUT
holds one run per config; with --resume, finished runs are not trained again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.inputs import print_table

from raygenome.errors import DataError, RaygenomeError
from raygenome.progress.bars import LineProgress
from raygenome.training.config import load_config
from raygenome.training.run import train


class Outcome(NamedTuple):
    """The result of one config.

    Attributes:
        name: name of its file.
        loss, epoch, seconds: the lowest validation loss, its epoch, and seconds until then.
        auroc: the best mean validation AUROC of any epoch.
        reached: seconds until the loss was as low as the first config's lowest; None if never.
    """

    name: str
    loss: float
    epoch: int
    seconds: float
    auroc: float | None
    reached: float | None


def compare(logs: dict[str, list[dict[str, Any]]]) -> list[Outcome]:
    """Return the result of each config from the log of its run.

    `reached` is relative to the lowest loss of the first config.

    Raises:
        DataError: a run has no validation losses.
    """
    outcomes: list[Outcome] = []
    for name, log in logs.items():
        if not log or any(line["valid_loss"] is None for line in log):
            raise DataError("the data has no validation windows, so there is no loss to compare")
        lowest = min(log, key=lambda line: line["valid_loss"])
        target = outcomes[0].loss if outcomes else lowest["valid_loss"]
        reached = next((line["seconds"] for line in log if line["valid_loss"] <= target), None)
        aurocs = [line["valid_auroc"] for line in log if line["valid_auroc"] is not None]
        best = max(aurocs, default=None)
        found = lowest["valid_loss"], lowest["epoch"], lowest["seconds"]
        outcomes.append(Outcome(name, *found, best, reached))
    return outcomes


def main(arguments: list[str] | None = None) -> None:
    """Train with each config and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, help="replaces epochs in each config")
    parser.add_argument("--epoch-samples", type=int, help="replaces epoch_samples in each config")
    parser.add_argument("--threads", type=int, help="threads of torch, on a CPU")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the runs in --out")
    again.add_argument("--fresh", action="store_true", help="start the runs in --out again")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON too")
    options = parser.parse_args(arguments)
    names = [path.stem for path in options.recipes]
    if len(set(names)) < len(names):
        raise SystemExit("compare_recipes: two configs have the same name; rename one")
    try:
        outcomes = compare({path.stem: _log(path, options) for path in options.recipes})
    except RaygenomeError as error:
        raise SystemExit(f"compare_recipes: {error}") from None
    _print(outcomes)
    if options.json:
        print(json.dumps([outcome._asdict() for outcome in outcomes], indent=1))


def _log(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train with a config, unless its run is finished; return the log of the run."""
    print(f"{path.stem}:", flush=True)
    wanted = {"epochs": options.epochs, "epoch_samples": options.epoch_samples}
    changes = {key: value for key, value in wanted.items() if value is not None}
    run = train(
        {**load_config(path).plain(), **changes},
        data=options.data,
        out=options.out / path.stem,
        workers=0,
        device=options.device,
        threads=options.threads,
        resume=options.resume,
        fresh=options.fresh,
        progress=LineProgress(sys.stdout),
    )
    return run.log


def _print(outcomes: list[Outcome]) -> None:
    heads = ["", "lowest valid loss", "epoch", "seconds", "best valid AUROC"]
    heads += [f"seconds to {outcomes[0].loss:.4f}", "of the first's"]
    rows = []
    for outcome in outcomes:
        row = [outcome.name, f"{outcome.loss:.4f}", str(outcome.epoch), f"{outcome.seconds:,.0f}"]
        row.append("" if outcome.auroc is None else f"{outcome.auroc:.4f}")
        if outcome.reached is None:
            row += ["never", ""]
        else:
            row += [f"{outcome.reached:,.0f}", f"{outcome.reached / outcomes[0].seconds:.2f}"]
        rows.append(row)
    print_table(heads, rows)


if __name__ == "__main__":
    main()
