"""Distributing the shards of a plan: to this process, or to Ray actors."""

import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raygenome.cluster.hardware import cores
from raygenome.engines.incremental.weights import sweep_weights
from raygenome.errors import PartialFailure
from raygenome.progress.bars import Progress
from raygenome.results.run_dir import FAILED, PLAN, RunDir
from raygenome.scoring.allele_file import PlannedAlleles
from raygenome.scoring.inputs import Inputs
from raygenome.scoring.plan import ALLELES_FILE, Plan
from raygenome.scoring.shard import Scorer, scorer_config
from raygenome.storage.tempdirs import remove_dead_temp_dirs

if TYPE_CHECKING:
    from raygenome.pool import ShardFailure

log = logging.getLogger(__name__)

#: Version of failed.json.
_FORMAT = 1


class Dispatch:
    """Scores the shards of a plan that are not committed yet.

    Attributes:
        todo: these shards, the largest first, so that short ones end the run.
    """

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
        self._rows_done = sum(receipt["rows"] for receipt in self._receipts.values())
        left = [shard for shard in plan.shards if shard.index not in self._receipts]
        self.todo = sorted(left, key=lambda shard: (-shard.rows, shard.index))

    def shards(self) -> tuple[int, int]:
        """Return how many shards are committed, and how many there are."""
        return len(self._receipts), len(self._plan.shards)

    def run(self) -> list[dict[str, Any]]:
        """Return every shard's receipt, in order.

        Raises:
            PartialFailure: some shards failed repeatedly; the other ones are committed.
        """
        if self._receipts:
            log.info("%d of %d shards are committed already", *self.shards())
        self._run.store.remove(FAILED)  # of an earlier try
        actors = self._inputs.workers.count(self.todo) if self.todo else 0
        self._progress.begin("scoring", self._plan.scorable, self._rows_done)
        try:
            if actors:
                self._score_on_ray(actors)
            elif self.todo:
                self._score_here()
        finally:
            self._progress.end()
        return [self._receipts[shard.index] for shard in self._plan.shards]

    def _score_here(self) -> None:
        config = scorer_config(self._run, self._inputs, self._identity, threads=cores())
        with contextlib.closing(Scorer(config, self._on_rows)) as scorer:
            for shard in self.todo:
                self._receipts[shard.index] = scorer.score_shard(shard)

    def _on_rows(self, rows: int) -> None:
        self._rows_done += rows
        self._progress.update(self._rows_done)

    def _score_on_ray(self, actors: int) -> None:
        def on_receipt(receipt: dict[str, Any]) -> None:
            self._receipts[receipt["shard"]] = receipt
            self._on_rows(receipt["rows"])

        from raygenome import pool  # Ray is loaded only where there are workers

        config = scorer_config(self._run, self._inputs, self._identity, shared=actors > 1)
        options = pool.PoolOptions(
            workers=actors,
            device=config.device,
            worker_gpus=self._inputs.workers.compute.worker_gpus,
            tags={"model": self._inputs.model.spec.name},
        )
        try:
            failures = pool.run_shards(
                self.todo,
                functools.partial(Scorer, config),
                options,
                on_receipt=on_receipt,
                on_progress=lambda rows: self._progress.update(self._rows_done + rows),
            )
        finally:
            if config.shared:  # the actors were killed and could not remove their weights
                sweep_weights(patience_s=2.0)
            remove_dead_temp_dirs()
        if failures:
            self._report(failures)

    def _report(self, failures: Sequence["ShardFailure"]) -> None:
        """Write failed.json, and raise PartialFailure."""
        source = self._run.store.open(f"{PLAN}/{ALLELES_FILE}")
        with contextlib.closing(PlannedAlleles(source)) as alleles:
            entries = [_failed_entry(failure, alleles) for failure in failures]
        self._run.store.publish_json({"format": _FORMAT, "shards": entries}, FAILED)
        first = entries[0]
        raise PartialFailure(
            f"{len(failures)} of {len(self._plan.shards)} shards failed; the first, "
            f"{first['chrom']}:{first['first_pos']}-{first['last_pos']}: {first['cause']}; "
            f"{self._run.store.shown(FAILED)} lists them, the other shards are committed",
            "fix the cause and run again with --resume",
        )


def _failed_entry(failure: "ShardFailure", alleles: PlannedAlleles) -> dict[str, Any]:
    """Return the entry of a shard in failed.json; positions are those of the VCF, from 1."""
    shard = failure.shard
    ends = (shard.begin, shard.end - 1)
    first, last = (alleles.rows(row, row + 1)["start"][0].as_py() for row in ends)
    return {
        "shard": shard.index,
        "chrom": shard.chrom,
        "first_pos": first + 1,
        "last_pos": last + 1,
        "rows": shard.rows,
        "cause": failure.cause,
        "attempts": failure.attempts,
    }
