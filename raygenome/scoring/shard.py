"""Scoring one shard: its planned alleles -> effects -> parts, and the input of ranking.

The same code runs in the driver's process (`--workers 0`) and inside a Ray actor. It reads the
shard's rows of the plan and the genome under them, runs the engine, and commits the files. It
returns a receipt of a few hundred bytes; effects never travel between processes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import raygenome
from raygenome.cluster.hardware import processor
from raygenome.engines.choice import make_engine
from raygenome.engines.full import Effects
from raygenome.errors import DataError, StorageError
from raygenome.genome.alleles import Shard
from raygenome.genome.fasta import Reference
from raygenome.genome.windows import Alleles, WindowSpec
from raygenome.ranking.per_target import Threshold, TopEffects, write_top_effects
from raygenome.ranking.variants import summarise, write_summary
from raygenome.registry.model import Model
from raygenome.results.run_dir import FORMAT, PLAN, RunDir
from raygenome.scoring.allele_file import PlannedAlleles
from raygenome.scoring.inputs import Inputs
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.part_file import (
    ColumnMaker,
    PartWriter,
    ScoreColumns,
    TargetColumns,
    key_columns,
)
from raygenome.scoring.plan import ALLELES_FILE
from raygenome.storage.bucket import is_remote


@dataclass(frozen=True)
class ScorerConfig:
    """Everything a scorer is made from; plain values, so that it can be sent to any worker.

    Attributes:
        model: `Model.place`; `fasta` and `run` are paths or URLs too.
        model_sha256: `Model.digest` of the model.
        fasta_sha256: `Reference.ends_digest` of the genome.
        key: `RunDir.key`.
        options: their engine is not "auto".
        device: "cpu" or "cuda".
        processor: `hardware.processor` of the workers.
        provenance: the description of the run in the footer of each part.
        threads: threads of this scorer.
        shared: whether other scorers on the same machine hold the same weights in shared memory.
    """

    model: str
    model_sha256: str
    fasta: str
    fasta_sha256: str
    run: str
    key: str
    options: ScoreOptions
    device: str
    processor: str
    provenance: dict[str, object]
    threads: int = 1
    shared: bool = False


def scorer_config(
    run: RunDir,
    inputs: Inputs,
    identity: dict[str, Any],
    *,
    threads: int = 1,
    shared: bool = False,
) -> ScorerConfig:
    """Return what scorers of a run are made from; `identity` goes into each part's footer."""
    return ScorerConfig(
        model=inputs.model.place,
        model_sha256=inputs.model.digest,
        fasta=_absolute(inputs.fasta),
        fasta_sha256=inputs.reference.ends_digest(),
        run=_absolute(run.store.source),
        key=run.key,
        options=inputs.options,
        device=inputs.workers.compute.device,
        processor=inputs.workers.processor,
        provenance={
            "format": FORMAT,
            "program": f"raygenome {raygenome.__version__}",
            "model": inputs.model.spec.name,
            "identity": identity,
        },
        threads=threads,
        shared=shared,
    )


def _absolute(place: str) -> str:
    """Return a path or URL as any process of this machine understands it."""
    return place if is_remote(place) else str(Path(place).resolve())


class Scorer:
    """Holds a model on its device and scores shards with it.

    `rows_done` counts the alleles scored so far, for a heartbeat that another thread reads.

    Args:
        config: the model, the inputs and the options.
        on_rows: called with the number of alleles that were just scored.
    """

    def __init__(self, config: ScorerConfig, on_rows: Callable[[int], None] | None = None) -> None:
        self.rows_done = 0
        self._config = config
        self._on_rows = on_rows
        self._run = RunDir(config.run, config.key)
        self._planned: PlannedAlleles | None = None
        self._reference = Reference.open(config.fasta)
        self._model = Model.open(config.model)
        net, spec = self._model.net(), self._model.spec
        self._names = [target.name for target in self._model.targets]
        self._threshold = Threshold(len(self._names), config.options.top_n)
        self._engine_seconds = 0.0
        self._refuse_other_inputs()
        _set_determinism(config)
        self.engine = make_engine(
            config.options.engine,
            net,
            share_as=config.model_sha256 if config.shared else None,
            channels=spec.channels,
            n_value=spec.n_value,
            window_spec=WindowSpec(spec.window, spec.centre, config.options.indel_mode),
            device=config.device,
            precision=config.options.precision,
            both_strands=config.options.strands == "both",
            threads=config.threads,
        )

    def _refuse_other_inputs(self) -> None:
        """Refuse a model or genome that was replaced since the run started, before this worker."""
        model, fasta = self._model, self._reference
        found = processor(self._config.device)
        if found != self._config.processor:
            # Kernels round differently. The user cannot fix this, and other nodes can go on.
            raise RuntimeError(f"this is {found}, the run started on {self._config.processor}")
        for path, planned, found in (
            (model.directory, self._config.model_sha256, model.digest),
            (fasta.path, self._config.fasta_sha256, fasta.ends_digest()),
        ):
            if planned != found:
                raise DataError(
                    f"{path} has changed since the run started (sha256 {planned}, now {found})",
                    "put it back and run again with --resume",
                )

    def close(self) -> None:
        """End the engine's threads and close the genome."""
        self.engine.close()
        self._reference.close()
        if self._planned is not None:
            self._planned.close()
        self._run.store.close()

    def score_shard(self, shard: Shard) -> dict[str, Any]:
        """Score `shard`, commit its files, and return the receipt.

        A second call writes the same bytes to the same files.

        Raises:
            StorageError: the disk is full or failed.
            DataError: the model's output is not finite.
        """
        start = time.perf_counter()
        self._engine_seconds = 0.0
        try:
            alleles = self._planned_alleles(shard)
            with ShardWriter(
                self._run, self._config, self._names, shard, alleles, self._threshold
            ) as writer:
                for effects in self.effects(shard, alleles):
                    writer.append(effects)
                    self._count(len(effects.diff))
                files = writer.commit()
            receipt = {
                "shard": shard.index,
                "chrom": shard.chrom,
                "rows": shard.rows,
                "first_pos": int(alleles["start"][0].as_py()) + 1,
                "last_pos": int(alleles["start"][-1].as_py()) + 1,
                "seconds": round(time.perf_counter() - start, 3),
                "engine_seconds": round(self._engine_seconds, 3),
                "files": files,
            }
            self._run.publish_receipt(receipt)
        except OSError as error:
            raise StorageError(
                f"shard {shard.index} of {self._run.place} failed: {error}; "
                "committed shards are kept",
                "fix the cause and run again with --resume",
            ) from error
        self._threshold.rise(shard.index, writer.top_effects.keys())
        return receipt

    def effects(self, shard: Shard, alleles: pa.Table) -> Iterator[Effects]:
        """Yield the effects of `alleles`, rows of the plan that lie in `shard`."""
        sequence = self._reference.contig(shard.contig)
        blocks = iter(self.engine.effects(_engine_alleles(alleles), sequence))
        while True:
            start = time.perf_counter()
            block = next(blocks, None)
            self._engine_seconds += time.perf_counter() - start
            if block is None:
                return
            if not (np.isfinite(block.diff).all() and np.isfinite(block.log_odds).all()):
                raise DataError(
                    f"the model {self._config.model} gives values that are not finite in shard "
                    f"{shard.index} ({shard.chrom})",
                    f"check it with `raygenome doctor --model {self._config.model}`",
                )
            yield block

    def _planned_alleles(self, shard: Shard) -> pa.Table:
        """Return the shard's rows of the plan."""
        if self._planned is None:
            try:
                source = self._run.store.open(f"{PLAN}/{ALLELES_FILE}")
            except FileNotFoundError:
                raise StorageError(
                    f"this worker sees no plan in {self._run.place}",
                    "put --out where every node of the cluster sees it: on a shared file system, "
                    "or in an object store",
                ) from None
            self._planned = PlannedAlleles(source)
        return self._planned.rows(shard.begin, shard.end)

    def _count(self, rows: int) -> None:
        self.rows_done += rows
        if self._on_rows is not None:
            self._on_rows(rows)


class ShardWriter:
    """Writes the effects of one shard; a context manager that leaves nothing unless committed.

    Args:
        run: the run directory.
        config: the scorer's.
        names: of the targets.
        shard: the shard.
        alleles: its rows of the plan.
        threshold: the worker's.

    Attributes:
        top_effects: the strongest effects of each target.
    """

    def __init__(
        self,
        run: RunDir,
        config: ScorerConfig,
        names: list[str],
        shard: Shard,
        alleles: pa.Table,
        threshold: Threshold,
    ) -> None:
        self.top_effects = TopEffects(len(names), config.options.top_n, shard.begin, threshold)
        self._run = run
        self._shard = shard
        self._keys = key_columns(shard, alleles)
        self._score = ScoreColumns(config.options.top_k)
        self._files: dict[str, Path] = {}
        self._parts: dict[str, PartWriter] = {}
        for dataset, makers in self._datasets(config.options, names).items():
            about = {**config.provenance, "dataset": dataset, "shard": shard.index}
            self._parts[dataset] = PartWriter(self._temporary(dataset), self._keys, makers, about)

    def _datasets(self, options: ScoreOptions, names: list[str]) -> dict[str, list[ColumnMaker]]:
        """Return the datasets that the shard has a part of, and the columns of each."""
        scores: list[ColumnMaker] = [self._score]
        if options.effects == "full":
            scores.append(TargetColumns(names, "diff", options.effect_dtype))
        if not options.log_odds:
            return {"scores": scores}
        log_odds = TargetColumns(names, "log_odds", options.effect_dtype)
        return {"scores": scores, "log_odds": [log_odds]}

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                part.abandon()
        for file in self._files.values():
            file.unlink(missing_ok=True)

    def append(self, effects: Effects) -> None:
        """Add the effects of the next alleles."""
        for part in self._parts.values():
            part.append(effects)
        self.top_effects.append(effects.diff)

    def commit(self) -> list[dict[str, Any]]:
        """Publish the files; return their entries in the receipt."""
        self._run.require_current()
        entries = [self._commit_part(dataset) for dataset in list(self._parts)]
        with self._temporary("tops").open("wb") as file:
            write_top_effects(file, self.top_effects.keys())
        summary = summarise(self._keys, self._score.strongest, self._shard.begin)
        write_summary(self._temporary("summaries"), summary)
        for name in ("tops", "summaries"):
            done = self._run.publish_working(self._files[name], name, self._shard.index)
            entries.append({"dataset": name, **done})
        return entries

    def _commit_part(self, dataset: str) -> dict[str, Any]:
        shard = self._shard
        self._parts.pop(dataset).close()
        done = self._run.publish_part(self._files[dataset], dataset, shard.chrom, shard.index)
        return {"dataset": dataset, "rows": shard.rows, **done}

    def _temporary(self, name: str) -> Path:
        file = self._run.store.temporary_file(f"{name}-{self._shard.index:05d}")
        self._files[name] = file
        return file


def _engine_alleles(table: pa.Table) -> Alleles:
    return Alleles(
        start=table["start"].to_numpy().astype(np.int64),
        ref_length=np.array([len(ref) for ref in table["ref"].to_pylist()], dtype=np.int64),
        alt=[alt.encode() for alt in table["alt"].to_pylist()],
    )


def _set_determinism(config: ScorerConfig) -> None:
    """Fix the settings that decide the rounding of CUDA kernels; a CPU has none."""
    if config.device == "cuda":
        tf32 = config.options.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
