"""What a shard leaves: its parts, and what ranking needs of it; written aside, then published."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from raygenome.engines.full import Effects
from raygenome.ranking.per_target import Floor, TargetTops, write_tops
from raygenome.ranking.variants import summarise, write_summary
from raygenome.results.run_dir import RunDir, Shard
from raygenome.scoring.part_file import KEYS, PartWriter, part_schema


@dataclass(frozen=True)
class ScorerConfig:
    """All that a scorer is made from; plain values, so that it travels to any worker.

    `model`, `fasta` and `run` are places, paths or URLs. `model_sha256` is `Model.digest`
    of the model, `fasta_sha256` the genome's `ends_digest`; `processor` is `machine.processor`;
    `provenance` is what each part's footer says of the run; `key` is `RunDir.key`.
    """

    model: str
    model_sha256: str
    fasta: str
    fasta_sha256: str
    run: str
    key: str
    engine: str = "full"
    device: str = "cpu"
    processor: str = "cpu"
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


class ShardWriter:
    """Writes the effects of one shard; a context manager that leaves nothing unless committed.

    Args:
        run: where to.
        config: of the scorer.
        names: of the targets.
        shard: which.
        alleles: its rows of the plan.
        floor: of the worker.

    Attributes:
        tops: the strongest effects of each target.
    """

    def __init__(
        self,
        run: RunDir,
        config: ScorerConfig,
        names: list[str],
        shard: Shard,
        alleles: pa.Table,
        floor: Floor,
    ) -> None:
        self.tops = TargetTops(len(names), config.top_n, shard.begin, floor)
        self._run = run
        self._shard = shard
        self._keys = _key_columns(shard, alleles)
        self._parts: dict[str, PartWriter] = {}
        self._files: dict[str, Path] = {}
        for dataset in ("scores", *(["log_odds"] if config.log_odds else [])):
            self._files[dataset] = run.store.temporary_file(f"{dataset}-{shard.index:05d}")
            schema = part_schema(
                names,
                dtype=config.effect_dtype,
                columns=config.columns or dataset == "log_odds",
                summary=dataset == "scores",
                provenance={**config.provenance, "dataset": dataset, "shard": shard.index},
            )
            self._parts[dataset] = PartWriter(
                self._files[dataset],
                schema,
                self._keys,
                top_k=config.top_k,
                dtype=config.effect_dtype,
            )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                part.abandon()
        for file in self._files.values():
            file.unlink(missing_ok=True)

    def append(self, block: Effects) -> None:
        """Add the effects of the next alleles."""
        self._parts["scores"].append(block.diff)
        self.tops.append(block.diff)
        if "log_odds" in self._parts:
            self._parts["log_odds"].append(block.log_odds)

    def commit(self) -> list[dict[str, Any]]:
        """Make the files exist; return their entries in the receipt."""
        self._run.require_current()
        strongest = self._parts["scores"].strongest
        entries = [self._commit_part(dataset) for dataset in list(self._parts)]
        tops = self._working_file("tops")
        with tops.open("wb") as handle:
            write_tops(handle, self.tops.keys())
        summary = self._working_file("summaries")
        write_summary(summary, summarise(self._keys, strongest, self._shard.begin))
        for name in ("tops", "summaries"):
            done = self._run.publish_working(self._files[name], name, self._shard.index)
            entries.append({"dataset": name, **done})
        return entries

    def _working_file(self, name: str) -> Path:
        file = self._run.store.temporary_file(f"{name}-{self._shard.index:05d}")
        self._files[name] = file
        return file

    def _commit_part(self, dataset: str) -> dict[str, Any]:
        shard = self._shard
        self._parts.pop(dataset).close()
        done = self._run.publish_part(self._files[dataset], dataset, shard.chrom, shard.index)
        return {"dataset": dataset, "rows": shard.rows, **done}


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
