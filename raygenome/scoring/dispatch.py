"""Handing out shards: in this process, or to Ray actors."""

import contextlib
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raygenome.cluster.hardware import cores
from raygenome.engines.incremental.weights import sweep_weights
from raygenome.errors import PartialFailure
from raygenome.progress.bars import Progress
from raygenome.results.run_dir import FAILED, PLAN, RunDir, Shard
from raygenome.scoring.allele_file import SpoolReader
from raygenome.scoring.ingest import ALLELES_FILE
from raygenome.scoring.inputs import Inputs
from raygenome.scoring.plan import Plan
from raygenome.scoring.scorer import Scorer
from raygenome.storage.tempdirs import remove_dead_temp_dirs

if TYPE_CHECKING:
    from raygenome.pool import ShardFailure

log = logging.getLogger(__name__)

#: Version of failed.json.
_FORMAT = 1


class Dispatch:
    """Scores the shards of a plan that are not committed yet.

    Attributes:
        todo: these shards, the largest first, so that the last to end are short ones.
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
        self._done = sum(receipt["rows"] for receipt in self._receipts.values())
        left = [shard for shard in plan.shards if shard.index not in self._receipts]
        self.todo = sorted(left, key=lambda shard: (-shard.rows, shard.index))

    def shards(self) -> tuple[int, int]:
        """Return how many shards are committed, and how many there are."""
        return len(self._receipts), len(self._plan.shards)

    def run(self) -> list[dict[str, Any]]:
        """Return every shard's receipt, in order.

        Raises:
            PartialFailure: some shards failed again and again; the rest is committed.
        """
        if self._receipts:
            log.info("%d of %d shards are committed already", *self.shards())
        self._run.store.remove(FAILED)  # of an earlier try
        device = self._inputs.options.device
        actors = self._inputs.host.actors(device, self.todo) if self.todo else 0
        self._progress.begin("scoring", self._plan.scorable, self._done)
        try:
            if actors:
                self._on_ray(actors)
            elif self.todo:
                self._here()
        finally:
            self._progress.end()
        return [self._receipts[shard.index] for shard in self._plan.shards]

    def _here(self) -> None:
        config = self._inputs.scorer_config(self._run, self._identity, cores())
        with contextlib.closing(Scorer(config, self._on_rows)) as scorer:
            for shard in self.todo:
                self._receipts[shard.index] = scorer.score_shard(shard)

    def _on_rows(self, rows: int) -> None:
        self._done += rows
        self._progress.update(self._done)

    def _on_ray(self, actors: int) -> None:
        def on_receipt(receipt: dict[str, Any]) -> None:
            self._receipts[receipt["shard"]] = receipt
            self._on_rows(receipt["rows"])

        from raygenome import pool  # without workers nothing of Ray is needed, nor loaded

        config = self._inputs.scorer_config(self._run, self._identity, threads=1, shared=actors > 1)
        options = pool.PoolOptions(
            workers=actors,
            device=config.device,
            worker_gpus=self._inputs.host.request.worker_gpus,
            tags={"model": self._inputs.model.spec.name},
        )
        try:
            failures = pool.run_shards(
                self.todo,
                functools.partial(Scorer, config),
                options,
                on_receipt=on_receipt,
                on_progress=lambda rows: self._progress.update(self._done + rows),
            )
        finally:
            if config.shared:  # the actors were killed, and had no time to
                sweep_weights(patience_s=2.0)
            remove_dead_temp_dirs()
        if failures:
            self._report(failures)

    def _report(self, failures: Sequence["ShardFailure"]) -> None:
        """Leave failed.json, and raise PartialFailure."""
        with SpoolReader(self._run.store.open(f"{PLAN}/{ALLELES_FILE}")) as alleles:
            entries = [_failed_entry(failure, alleles) for failure in failures]
        self._run.store.publish_json({"format": _FORMAT, "shards": entries}, FAILED)
        first = entries[0]
        raise PartialFailure(
            f"{len(failures)} of {len(self._plan.shards)} shards failed; the first, "
            f"{first['chrom']}:{first['first_pos']}-{first['last_pos']}: {first['cause']}; "
            f"{self._run.store.shown(FAILED)} lists them, the rest is committed: "
            "mend the cause and run again with --resume"
        )


def _failed_entry(failure: "ShardFailure", alleles: SpoolReader) -> dict[str, Any]:
    """Return what failed.json says of a shard; positions are those of the VCF, from 1."""
    shard: Shard = failure.shard
    first, last = (alleles.rows(row, row + 1)["start"][0].as_py() for row in _ends(shard))
    return {
        "shard": shard.index,
        "chrom": shard.chrom,
        "first_pos": first + 1,
        "last_pos": last + 1,
        "rows": shard.rows,
        "cause": failure.cause,
        "attempts": failure.attempts,
    }


def _ends(shard: Shard) -> tuple[int, int]:
    return shard.begin, shard.end - 1
