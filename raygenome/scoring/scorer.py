"""Scoring one shard: a plain function of a shard and what the scorer was made with.

The same code runs in the driver's process (`--workers 0`) and inside a Ray actor: it reads its
rows of the plan and the genome under them, runs the engine, and commits one part. What it returns
is a receipt of a few hundred bytes; effects never travel between processes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raygenome.disk import publish
from raygenome.engines.choice import make_engine
from raygenome.engines.full import Effects
from raygenome.errors import DataError, StorageError
from raygenome.genome.fasta import Reference
from raygenome.genome.windows import Alleles, Frame
from raygenome.registry import registry
from raygenome.results.effects import KEYS, PartWriter, TargetTops, part_schema
from raygenome.results.rundir import RunDir, Shard
from raygenome.scoring import spool
from raygenome.scoring.ingest import ALLELES_FILE


@dataclass(frozen=True)
class ScorerConfig:
    """All that a scorer is made from; plain values, so that it travels to any worker.

    `model_sha256` is `registry.model_digest` of the model, `fasta_sha256` the genome's
    `ends_digest`; `provenance` is what each part's footer says of the run.
    """

    model: str
    model_sha256: str
    fasta: str
    fasta_sha256: str
    run: str
    engine: str = "full"
    device: str = "cpu"
    precision: str = "fp32"
    both_strands: bool = True
    indel_mode: str = "symmetric"
    columns: bool = True
    effect_dtype: str = "float16"
    top_k: int = 16
    top_n: int = 1000
    log_odds: bool = False
    threads: int = 1
    shared: bool = False
    provenance: dict[str, object] = field(default_factory=dict)


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
        self._run = RunDir(Path(config.run))
        self._reference = Reference.open(Path(config.fasta))
        net, spec = registry.load_model(Path(config.model))
        self._names = [target.name for target in registry.load_targets(Path(config.model))]
        self._refuse_other_inputs()
        _set_determinism(config)
        self.engine = make_engine(
            config.engine,
            net,
            share_as=config.model_sha256 if config.shared else None,
            channels=spec.channels,
            n_value=spec.n_value,
            frame=Frame(spec.window, spec.centre, config.indel_mode),
            device=config.device,
            precision=config.precision,
            both_strands=config.both_strands,
            threads=config.threads,
        )

    def _refuse_other_inputs(self) -> None:
        """Refuse a model or genome that was replaced since the run began: a late worker sees it."""
        model, fasta = Path(self._config.model), self._reference
        for path, planned, found in (
            (model, self._config.model_sha256, registry.model_digest(model)),
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

    def score_shard(self, shard: Shard) -> dict[str, Any]:
        """Score `shard`, commit its part, and return the receipt.

        Doing it again writes the same bytes to the same place.

        Raises:
            StorageError: the disk is full or failed.
            DataError: the model's output is not finite.
        """
        began = time.perf_counter()
        try:
            alleles = spool.read_rows(self._run.plan / ALLELES_FILE, shard.begin, shard.end)
            files = self._write_parts(shard, alleles)
            receipt = {
                "shard": shard.index,
                "chrom": shard.chrom,
                "rows": shard.rows,
                "first_pos": alleles["start"][0].as_py() + 1,
                "last_pos": alleles["start"][-1].as_py() + 1,
                "seconds": round(time.perf_counter() - began, 3),
                "files": files,
            }
            self._run.publish_json(receipt, self._run.receipt(shard.index))
        except OSError as error:
            raise StorageError(
                f"shard {shard.index} of {self._run.path} failed: {error}; "
                "what is committed stays: mend the cause and run again with --resume"
            ) from error
        return receipt

    def effects(self, shard: Shard, table: pa.Table) -> Iterator[Effects]:
        """Yield the engine's effects of the alleles in `table`, rows of the plan."""
        sequence = _Contig(self._reference, shard.contig)
        for block in self.engine.effects(_alleles(table), sequence):
            if not (np.isfinite(block.diff).all() and np.isfinite(block.log_odds).all()):
                raise DataError(
                    f"the model {self._config.model} gives values that are not finite in shard "
                    f"{shard.index} ({shard.chrom}); check its weights with `raygenome models show`"
                )
            yield block

    def _write_parts(self, shard: Shard, alleles: pa.Table) -> list[dict[str, Any]]:
        tops = TargetTops(len(self._names), self._config.top_n, shard.begin)
        with contextlib.ExitStack() as stack:
            diff = stack.enter_context(self._part("scores", shard, alleles))
            odds = None
            if self._config.log_odds:
                odds = stack.enter_context(self._part("log_odds", shard, alleles))
            for block in self.effects(shard, alleles):
                diff.writer.append(block.diff)
                tops.append(block.diff)
                if odds is not None:
                    odds.writer.append(block.log_odds)
                self.rows_done += len(block.diff)
                if self._on_rows is not None:
                    self._on_rows(len(block.diff))
            files = [part.commit() for part in (diff, odds) if part is not None]
        return [*files, self._commit_tops(shard, tops)]

    @contextlib.contextmanager
    def _part(self, dataset: str, shard: Shard, alleles: pa.Table) -> Iterator["_OpenPart"]:
        part = _OpenPart(self._run, dataset, shard, alleles, self._names, self._config)
        try:
            yield part
        except BaseException:
            part.abandon()
            raise

    def _commit_tops(self, shard: Shard, tops: TargetTops) -> dict[str, Any]:
        final = self._run.top(shard.index)
        temporary = self._run.temporary_file(final)
        with temporary.open("wb") as handle:
            np.save(handle, tops.keys())
        path = str(final.relative_to(self._run.path))
        return {"dataset": "tops", "path": path, **publish(temporary, final)}


class _OpenPart:
    """A part being written under a temporary name."""

    def __init__(
        self,
        run: RunDir,
        dataset: str,
        shard: Shard,
        alleles: pa.Table,
        names: list[str],
        config: ScorerConfig,
    ) -> None:
        self._run = run
        self._dataset = dataset
        self._rows = shard.rows
        self._final = run.part(dataset, shard.chrom, shard.index)
        self._temporary = run.temporary_file(self._final)
        schema = part_schema(
            names,
            dtype=config.effect_dtype,
            columns=config.columns or dataset == "log_odds",
            summary=dataset == "scores",
            provenance={**config.provenance, "dataset": dataset, "shard": shard.index},
        )
        self.writer = PartWriter(
            self._temporary,
            schema,
            _key_columns(shard, alleles),
            top_k=config.top_k,
            dtype=config.effect_dtype,
        )

    def commit(self) -> dict[str, Any]:
        """Make the part exist; return its entry in the receipt."""
        self.writer.close()
        path = str(self._final.relative_to(self._run.path))
        done = publish(self._temporary, self._final)
        return {"dataset": self._dataset, "path": path, "rows": self._rows, **done}

    def abandon(self) -> None:
        """Leave no trace of it."""
        with contextlib.suppress(OSError):
            self.writer.abandon()
        self._temporary.unlink(missing_ok=True)


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


def _key_columns(shard: Shard, alleles: pa.Table) -> pa.Table:
    """Return the key columns of a part: `pos` counts from 1, as in the VCF."""
    columns = {
        "chrom": pa.repeat(shard.chrom, alleles.num_rows),
        "pos": pa.array(alleles["start"].to_numpy() + 1),
    }
    return pa.table(
        [
            columns.get(name, alleles[name] if name in alleles.column_names else None)
            for name, _ in KEYS
        ],
        schema=pa.schema(KEYS),
    )


def _set_determinism(config: ScorerConfig) -> None:
    """Fix what decides the rounding of a CUDA kernel; nothing to do on a CPU."""
    if config.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
