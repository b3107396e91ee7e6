"""Random kills: a scoring run is killed and resumed many times, and must give the same result.

    PYTHONPATH=tests python -m chaos.kill_campaign --kills 300 --seed 1

Each run scores a synthetic input with `raygenome score --workers 2 --resume`, slowed down while
kills are still to come. At random times a random victim is killed: the driver, a worker, the raylet
or the GCS. If the run ends because of it, it is started again until it is done. Then every .parquet
file and the counts must equal those of an undisturbed run. A run may start a shard again only
because of a kill, and only the shards of the dead workers. If Ray is lost, the run must end by
itself, without a traceback, with exit code 75, or with 1 if Ray ends it first.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chaos.killed_run import BY_RAY, PARTIAL, WORKERS, Kill, KilledRun, command
from chaos.slow_scorer import marks_of
from support.paths import python_environment

#: How often each victim is drawn. Every victim but a worker costs a start of Ray.
SHARES = {"driver": 0.3, "worker": 0.5, "raylet": 0.1, "gcs": 0.1}

#: Least and most kills per run.
KILLS = 2, 7

ALLELES, SHARDS = 3_000, 100
MODEL = {
    "window": 600,
    "targets": 8,
    "channels": [16, 16],
    "kernels": [11, 5],
    "pools": [4, 4],
    "hidden": [32],
}


@dataclass
class Campaign:
    """The results; `wrong` lists the problems of each run."""

    seed: int
    runs: int = 0
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    wrong: dict[int, list[str]] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> None:
    """Run it, print the table, and exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="number of all kills")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    parser.add_argument(
        "--early",
        type=float,
        default=0.2,
        help="share of early kills, except of drivers",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON too")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    victims = chance.choices(list(SHARES), weights=list(SHARES.values()), k=options.kills)
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as folder:
        campaign = kill_again_and_again(
            Path(folder), victims, options.seed, at_once=options.at_once, early=options.early
        )
    print(table(campaign))
    if options.json:
        print(json.dumps(asdict(campaign)))
    if campaign.wrong:
        sys.exit(1)


def kill_again_and_again(
    folder: Path,
    victims: list[str],
    seed: int,
    *,
    at_once: int,
    early: float,
    each: tuple[int, int] = KILLS,
) -> Campaign:
    """Kill all `victims`, distributed over many runs in `folder`.

    Args:
        folder: for inputs and runs.
        victims: whom to kill.
        seed: random seed of the times, and of who is killed in which run.
        at_once: runs side by side.
        early: share of the kills, except those of drivers, that may come before any receipt.
        each: least and most kills per run.
    """
    began = time.monotonic()
    inputs = make_inputs(folder)
    expected, calm_s = calm_runs(folder, inputs)
    chance = random.Random(seed)
    victims = chance.sample(victims, len(victims))
    campaign = Campaign(seed)

    def go(number: int, mine: list[str]) -> KilledRun:
        return KilledRun(
            number,
            inputs,
            folder / f"run-{number}",
            mine,
            chance=random.Random(f"{seed} {number}"),
            calm_s=calm_s,
            early=early,
        ).through()

    with ThreadPoolExecutor(at_once) as threads:
        while victims:  # victims that are left over at the end of a run are killed in further runs
            hands = deal(victims, chance, each)
            numbers = range(campaign.runs, campaign.runs + len(hands))
            victims = []
            for number, run in zip(numbers, threads.map(go, numbers, hands), strict=True):
                campaign.runs += 1
                campaign.kills += run.kills
                victims += run.left
                if wrong := run.wrong + compare(run.out, expected):
                    campaign.wrong[number] = wrong
    campaign.seconds = time.monotonic() - began
    return campaign


def calm_runs(folder: Path, inputs: list[str]) -> tuple[dict[str, Any], float]:
    """Return the digests of an undisturbed run, and the seconds of one with workers."""

    def go(name: str, workers: int) -> float:
        out = folder / name
        (marks_of(out) / "fast").touch()
        began = time.monotonic()
        words = command(inputs, out, workers=workers)
        subprocess.run(words, check=True, capture_output=True, env=python_environment())
        return time.monotonic() - began

    with ThreadPoolExecutor(2) as threads:
        _, seconds = threads.map(go, ("whole", "calm"), (0, WORKERS))
    expected = digests(folder / "whole")
    if wrong := compare(folder / "calm", expected):
        raise AssertionError(f"with and without workers: {wrong}")
    return expected, seconds


def deal(victims: list[str], chance: random.Random, each: tuple[int, int]) -> list[list[str]]:
    """Return the victims of each run."""
    victims, hands = list(victims), []
    while victims:
        count = chance.randint(*each)
        hands.append(victims[:count])
        del victims[:count]
    return hands


def digests(out: Path) -> dict[str, Any]:
    """Return the digests that must be equal in two runs: every .parquet file, and the counts."""
    document = json.loads((out / "run.json").read_text())
    files = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*.parquet")
    }
    return {**files, "counts": document["counts"]}


def compare(out: Path, expected: dict[str, Any]) -> list[str]:
    """Return the differences between a run and the expected digests, one line each."""
    if not (out / "_SUCCESS").exists():
        return ["there is no _SUCCESS"]
    found = digests(out)
    names = sorted(found.keys() | expected.keys())
    return [f"{name} differs" for name in names if found.get(name) != expected.get(name)]


def make_inputs(folder: Path) -> list[str]:
    """Write a genome, a model and a VCF of ALLELES SNVs; return them as arguments."""
    from raygenome.registry.registry import init_model

    rng = np.random.default_rng(0)
    bases = rng.choice(list("ACGT"), 10 * ALLELES)
    genome = folder / "genome.fa"
    genome.write_text(">chr1\n" + "".join(bases) + "\n")
    model = folder / "model"
    init_model(model.name, "basset", 0, config=MODEL, directory=model)
    vcf = folder / "variants.vcf"
    lines = ["##fileformat=VCFv4.3", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for start in np.sort(rng.choice(len(bases), ALLELES, replace=False)):
        alt = rng.choice([base for base in "ACGT" if base != bases[start]])
        lines.append(f"chr1\t{start + 1}\t.\t{bases[start]}\t{alt}\t.\tPASS\t.")
    vcf.write_text("\n".join(lines) + "\n")
    size = str(ALLELES // SHARDS)
    return [str(vcf), "--model", str(model), "--fasta", str(genome), "--shard-size", size]


def table(campaign: Campaign) -> str:
    """Return the figures by victim; `identical` counts the runs with such a kill.

    The next three columns are the exit codes of commands that ended because of a kill, `seconds` is
    how long that took, and `redone` counts shards that were started again.
    """
    lines = [
        "victim  kills  runs  identical   0  75  1 (by Ray)  seconds, most  redone, most a kill"
    ]
    for victim in SHARES:
        kills = [kill for kill in campaign.kills if kill.victim == victim]
        runs = {kill.run for kill in kills}
        done, partial, ray = (
            sum(kill.code == code for kill in kills) for code in (0, PARTIAL, BY_RAY)
        )
        ends = [kill.seconds for kill in kills if kill.code in (PARTIAL, BY_RAY)] or [0.0]
        redone = [kill.redone for kill in kills] or [0]
        lines.append(
            f"{victim:6}  {len(kills):5}  {len(runs):4}  {len(runs - campaign.wrong.keys()):9}  "
            f"{done:2}  {partial:2}  {ray:10}  {np.mean(ends):7.1f}, {max(ends):4.1f}  "
            f"{sum(redone):6}, {max(redone):11}"
        )
    lines.append(
        f"{len(campaign.kills)} kills in {campaign.runs} runs, {campaign.seconds:.0f} s, "
        f"seed {campaign.seed}; {len(campaign.wrong)} runs went wrong"
    )
    for number, wrong in campaign.wrong.items():
        lines += [f"run {number}: {line}" for line in wrong]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
