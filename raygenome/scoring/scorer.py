"""Scoring one shard: a plain function of a shard and what the scorer was made with.

The same code runs in the driver's process (`--workers 0`) and inside a Ray actor: it reads its
rows of the plan and the genome under them, runs the engine, and commits one part. What it returns
is a receipt of a few hundred bytes; effects never travel between processes.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raygenome.cluster.hardware import processor
from raygenome.engines.choice import make_engine
from raygenome.engines.full import Effects
from raygenome.errors import DataError, StorageError
from raygenome.genome.fasta import Reference
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.ranking.per_target import Floor
from raygenome.registry.model import Model
from raygenome.results.run_dir import PLAN, RunDir, Shard
from raygenome.scoring import allele_file
from raygenome.scoring.ingest import ALLELES_FILE
from raygenome.scoring.parts import ScorerConfig, ShardWriter


class Scorer:
    """Holds a model on its device and scores shards with it.

    `rows_done` counts the alleles scored so far, for a heartbeat that another thread reads.

    Args:
        config: what to score with.
        on_rows: told how many more alleles are scored, as they are.
    """

    def __init__(self, config: ScorerConfig, on_rows: Callable[[int], None] | None = None) -> None:
        self.rows_done = 0
        self._config = config
        self._on_rows = on_rows
        self._run = RunDir(config.run, config.key)
        self._alleles: allele_file.SpoolReader | None = None
        self._reference = Reference.open(config.fasta)
        self._model = Model.open(config.model)
        net, spec = self._model.net(), self._model.spec
        self._names = [target.name for target in self._model.targets]
        self._floor = Floor(len(self._names), config.top_n)
        self._engine_seconds = 0.0
        self._refuse_other_inputs()
        _set_determinism(config)
        self.engine = make_engine(
            config.engine,
            net,
            share_as=config.model_sha256 if config.shared else None,
            channels=spec.channels,
            n_value=spec.n_value,
            window_spec=WindowSpec(spec.window, spec.centre, config.indel_mode),
            device=config.device,
            precision=config.precision,
            both_strands=config.both_strands,
            threads=config.threads,
        )

    def _refuse_other_inputs(self) -> None:
        """Refuse a model or genome that was replaced since the run began: a late worker sees it."""
        model, fasta = self._model, self._reference
        found = processor(self._config.device)
        if found != self._config.processor:
            # Kernels round differently: no error of the user's, so that other nodes go on.
            raise RuntimeError(f"this is {found}, the run began on {self._config.processor}")
        for path, planned, found in (
            (model.directory, self._config.model_sha256, model.digest),
            (fasta.path, self._config.fasta_sha256, fasta.ends_digest()),
        ):
            if planned != found:
                raise DataError(
                    f"{path} has changed since the run began (sha256 {planned}, now {found}); "
                    "put it back and run again with --resume"
                )

    def close(self) -> None:
        """End the engine's threads and close the genome."""
        self.engine.close()
        self._reference.close()
        if self._alleles is not None:
            self._alleles.close()
        self._run.store.close()

    def score_shard(self, shard: Shard) -> dict[str, Any]:
        """Score `shard`, commit its part, and return the receipt.

        Doing it again writes the same bytes to the same place.

        Raises:
            StorageError: the disk is full or failed.
            DataError: the model's output is not finite.
        """
        began = time.perf_counter()
        self._engine_seconds = 0.0
        try:
            alleles = self._rows(shard)
            with ShardWriter(
                self._run, self._config, self._names, shard, alleles, self._floor
            ) as writer:
                for block in self.effects(shard, alleles):
                    writer.append(block)
                    self._tell(len(block.diff))
                files = writer.commit()
            receipt = {
                "shard": shard.index,
                "chrom": shard.chrom,
                "rows": shard.rows,
                "first_pos": alleles["start"][0].as_py() + 1,
                "last_pos": alleles["start"][-1].as_py() + 1,
                "seconds": round(time.perf_counter() - began, 3),
                "engine_seconds": round(self._engine_seconds, 3),
                "files": files,
            }
            self._run.publish_receipt(receipt)
        except OSError as error:
            raise StorageError(
                f"shard {shard.index} of {self._run.place} failed: {error}; "
                "what is committed stays: mend the cause and run again with --resume"
            ) from error
        self._floor.rise(shard.index, writer.tops.keys())
        return receipt

    def _rows(self, shard: Shard) -> pa.Table:
        """Return the rows of the plan that a shard is."""
        if self._alleles is None:
            try:
                source = self._run.store.open(f"{PLAN}/{ALLELES_FILE}")
            except FileNotFoundError:
                raise StorageError(
                    f"{self._run.place} has no plan as this worker sees it; --out has to lie where "
                    "every node of the cluster sees it: a shared file system, or an object store"
                ) from None
            self._alleles = allele_file.SpoolReader(source)
        return self._alleles.rows(shard.begin, shard.end)

    def _tell(self, rows: int) -> None:
        self.rows_done += rows
        if self._on_rows is not None:
            self._on_rows(rows)

    def effects(self, shard: Shard, table: pa.Table) -> Iterator[Effects]:
        """Yield the engine's effects of the alleles in `table`, rows of the plan."""
        sequence = _Contig(self._reference, shard.contig)
        blocks = iter(self.engine.effects(_alleles(table), sequence))
        while True:
            began = time.perf_counter()
            block = next(blocks, None)
            self._engine_seconds += time.perf_counter() - began
            if block is None:
                return
            if not (np.isfinite(block.diff).all() and np.isfinite(block.log_odds).all()):
                raise DataError(
                    f"the model {self._config.model} gives values that are not finite in shard "
                    f"{shard.index} ({shard.chrom}); check it with `raygenome doctor --model "
                    f"{self._config.model}`"
                )
            yield block


class _Contig:
    """One contig of a genome, as engines see it."""

    def __init__(self, reference: Reference, contig: str) -> None:
        self._reference = reference
        self._contig = contig

    def fetch(self, start: int, end: int) -> np.ndarray:
        return self._reference.fetch(self._contig, start, end)


def _alleles(table: pa.Table) -> Alleles:
    return Alleles(
        start=table["start"].to_numpy().astype(np.int64),
        ref_length=np.array([len(ref) for ref in table["ref"].to_pylist()], dtype=np.int64),
        alt=[alt.encode() for alt in table["alt"].to_pylist()],
    )


def _set_determinism(config: ScorerConfig) -> None:
    """Fix what decides the rounding of a CUDA kernel; nothing to do on a CPU."""
    if config.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
