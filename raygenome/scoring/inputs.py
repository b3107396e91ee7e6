"""What a scoring run reads: VCF, genome, model, options; opened, and named by content."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import raygenome
from raygenome.engines.choice import choose_engine
from raygenome.genome.contigs import ContigMap
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Regions, load_regions
from raygenome.registry.model import Model
from raygenome.results.run_dir import FORMAT, RunDir, Shard
from raygenome.scoring.compute import Host, WorkerFacts
from raygenome.scoring.ingest import PlanOptions
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.part_file import bytes_per_row
from raygenome.scoring.parts import ScorerConfig
from raygenome.storage.bucket import is_remote

log = logging.getLogger(__name__)

#: What a Parquet file says of each of its columns, statistics and page index included: measured.
_FOOTER_BYTES = 400


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run; `options` have no `auto` left in them.

    Attributes:
        vcf: a path, a URL, or "-".
        fasta: the place of the genome; `reference` is it, opened.
        model: the model, opened.
        host: where the model runs.
        facts: of the workers there.
    """

    vcf: str
    fasta: str
    reference: Reference
    model: Model
    options: ScoreOptions
    regions: Regions | None
    host: Host
    facts: WorkerFacts

    def identity(self, vcf_sha256: str) -> dict[str, Any]:
        """Return what two runs must have in common to be one run, by plain names."""
        options = self.options.plain()
        for name in ("regions", "regions_file"):
            del options[name]  # what they select decides, not how it was written
        return {
            "vcf sha256": vcf_sha256,
            "fasta sha256": self.reference.digest(),
            "model sha256": self.model.digest,
            "raygenome": raygenome.__version__,
            "torch": self.facts.torch,
            "processor": self.facts.processor,
            "regions sha256": None if self.regions is None else self.regions.digest(),
            **options,
        }

    def plan_options(self) -> PlanOptions:
        """Return what planning needs of the options."""
        return PlanOptions(
            width=self.model.spec.window,
            ref_mismatch=self.options.ref_mismatch,
            regions=self.regions,
            filters=frozenset(self.options.apply_filters) or None,
            shard_size=self.options.shard_size,
        )

    def scorer_config(
        self, run: RunDir, identity: dict[str, Any], threads: int, *, shared: bool = False
    ) -> ScorerConfig:
        """Return what scorers are made from.

        Args:
            run: where parts go.
            identity: goes into each part's footer.
            threads: of one scorer.
            shared: several scorers may run on one machine, and hold their weights together.
        """
        options = self.options
        return ScorerConfig(
            model=_absolute(self.model.place),
            model_sha256=self.model.digest,
            fasta=_absolute(self.fasta),
            fasta_sha256=self.reference.ends_digest(),
            run=_absolute(run.store.source),
            key=run.key,
            engine=options.engine,
            device=options.device,
            processor=self.facts.processor,
            precision=options.precision,
            both_strands=options.strands == "both",
            indel_mode=options.indel_mode,
            columns=options.effects == "full",
            effect_dtype=options.effect_dtype,
            top_k=min(options.top_k, self.model.spec.targets),
            top_n=options.top_n,
            log_odds=options.log_odds,
            threads=threads,
            shared=shared,
            provenance={
                "format": FORMAT,
                "program": f"raygenome {raygenome.__version__}",
                "model": self.model.spec.name,
                "identity": identity,
            },
        )

    def bytes_aside(self, shards: Sequence[Shard]) -> int:
        """Return about how many bytes the working files that stay on local disk take: measured."""
        return 100 * sum(shard.rows for shard in shards)

    def bytes_needed(self, shards: Sequence[Shard]) -> int:
        """Return about how many bytes scoring `shards` takes on the disk, at its largest."""
        options = self.options
        datasets = (options.effects == "full") + options.log_odds
        row = bytes_per_row(self.model.spec.targets, dtype=options.effect_dtype, datasets=datasets)
        most = max((min(options.top_n, shard.rows) for shard in shards), default=0)
        tops = 8 * self.model.spec.targets * most * _full_tops(len(shards))
        footers = len(shards) * (_FOOTER_BYTES * self.model.spec.targets * datasets + 10_000)
        return sum(shard.rows for shard in shards) * row + int(tops) + footers


def _full_tops(shards: int) -> float:
    """Return how many shards' full lists of strongest effects `shards` take at most.

    The i-th shard of a worker leaves 1/i of such a list (`ranking.per_target`); for 64 workers.
    """
    return min(shards, 64 * (1 + math.log(max(shards / 64, 1))))


def open_inputs(
    vcf: str | Path, model: str | Path, fasta: str | Path, options: ScoreOptions, host: Host
) -> Inputs:
    """Open what a run on `host` reads, but for the VCF, which is read by planning.

    Raises:
        RaygenomeError: a name that leads nowhere, a damaged file, an option that cannot be met.
    """
    opened = Model.open(str(model))
    # Workers load the model; a damaged one must show before there is anything to resume.
    opened.check()
    net = opened.empty_net()
    reference = Reference.open(fasta)
    regions = None
    if options.regions or options.regions_file:
        contigs = ContigMap(list(reference.contigs))
        beds = [str(path) for path in options.regions_file]
        regions = load_regions(options.regions, beds, contigs.resolve, known=contigs.contigs)
    options = options.resolved(gpu=host.machines.gpus > 0)
    engine, why = choose_engine(options.engine, net)
    if why:
        log.warning("%s is scored with --engine full: %s", opened.spec.name, why)
    options = dataclasses.replace(options, engine=engine)
    return Inputs(
        vcf=str(vcf),
        fasta=str(fasta),
        reference=reference,
        model=opened,
        options=options,
        regions=regions,
        host=host,
        facts=host.look(options.device),
    )


def _absolute(place: str) -> str:
    """Return a place as any process of this machine understands it."""
    return place if is_remote(place) else str(Path(place).resolve())
