"""Handing out shards: in this process, or to Ray actors; and which of the two it is to be."""

import contextlib
import functools
import logging
from typing import Any

from raygenome.engines.incremental.weights import sweep_weights
from raygenome.errors import PartialFailure, UsageError
from raygenome.machine import cores
from raygenome.progress import Progress
from raygenome.results.rundir import RunDir, Shard
from raygenome.scoring.inputs import Inputs
from raygenome.scoring.plan import Plan
from raygenome.scoring.scorer import Scorer

log = logging.getLogger(__name__)

#: Alleles below which a CPU run without a cluster starts no actors unless told to.
_FEWEST_FOR_ACTORS = 10_000


class Dispatch:
    """Scores the shards of a plan that are not committed yet."""

    def __init__(
        self,
        run: RunDir,
        plan: Plan,
        inputs: Inputs,
        identity: dict[str, Any],
        progress: Progress,
    ) -> None:
        self._run = run
        self._plan = plan
        self._inputs = inputs
        self._identity = identity
        self._progress = progress
        self._receipts = run.committed()
        self._done = sum(receipt["rows"] for receipt in self._receipts.values())
        self.todo = [shard for shard in plan.shards if shard.index not in self._receipts]

    def run(self, workers: int | None, address: str | None) -> list[dict[str, Any]]:
        """Return every shard's receipt, in order.

        Raises:
            PartialFailure: some shards failed again and again; the rest is committed.
        """
        todo = self.todo
        if self._receipts:
            log.info(
                "%d of %d shards are committed already",
                len(self._receipts),
                len(self._plan.shards),
            )
        if todo:
            actors = actor_count(workers, self._inputs.options.device, todo, address)
            self._progress.begin("scoring", self._plan.scorable, self._done)
            try:
                if actors == 0:
                    self._here(todo)
                else:
                    self._on_ray(todo, actors, address)
            finally:
                self._progress.end()
        return [self._receipts[shard.index] for shard in self._plan.shards]

    def _here(self, todo: list[Shard]) -> None:
        config = self._inputs.scorer_config(self._run, self._identity, cores())
        with contextlib.closing(Scorer(config, self._on_rows)) as scorer:
            for shard in todo:
                self._receipts[shard.index] = scorer.score_shard(shard)

    def _on_rows(self, rows: int) -> None:
        self._done += rows
        self._progress.update(self._done)

    def _on_ray(self, todo: list[Shard], actors: int, address: str | None) -> None:
        def on_receipt(receipt: dict[str, Any]) -> None:
            self._receipts[receipt["shard"]] = receipt
            self._on_rows(receipt["rows"])

        from raygenome import pool  # without workers nothing of Ray is needed, nor loaded

        config = self._inputs.scorer_config(self._run, self._identity, threads=1, shared=actors > 1)
        try:
            failures = pool.run_shards(
                todo,
                functools.partial(Scorer, config),
                pool.PoolOptions(workers=actors, device=config.device, address=address),
                on_receipt=on_receipt,
                on_progress=lambda rows: self._progress.update(self._done + rows),
            )
        finally:
            if config.shared:  # the actors were killed, and had no time to
                sweep_weights(patience_s=2.0)
        if failures:
            first = failures[0]
            raise PartialFailure(
                f"{len(failures)} of {len(todo)} shards failed; the first, {first.shard.index} "
                f"on {first.shard.chrom}: {first.cause}; the rest is committed: "
                "mend the cause and run again with --resume"
            )


def wanted_actors(workers: int | str | None) -> int | None:
    """Return the number of workers that was asked for; None leaves it to `actor_count`.

    Raises:
        UsageError: it is neither "auto" nor a number of at least 0.
    """
    if workers is None or workers == "auto":
        return None
    try:
        number = int(workers)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(workers, bool | float):
        raise UsageError(f"--workers is {workers}; it must be auto, 0 (no Ray) or more")
    return number


def actor_count(
    workers: int | None, device: str, shards: list[Shard], address: str | None = None
) -> int:
    """Return how many Ray actors to start; 0 means none: score in this process.

    On a CPU this process keeps every core busy by itself, as fast as actors do, and Ray takes
    seconds to start: so actors are started only where there is some work, or a cluster is named.
    """
    if workers is not None:
        return workers
    if len(shards) <= 1:
        return 0
    if device == "cuda":
        import torch

        return min(torch.cuda.device_count(), len(shards))
    small = sum(shard.rows for shard in shards) < _FEWEST_FOR_ACTORS
    if address is None and (small or cores() == 1):
        return 0
    return min(cores(), len(shards))
