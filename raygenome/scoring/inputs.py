"""What a scoring run reads: VCF, genome, model, options; opened, and named by content."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import raygenome
from raygenome.engines.choice import choose_engine
from raygenome.genome.contigs import ContigMap
from raygenome.genome.fasta import Reference
from raygenome.registry import registry
from raygenome.results.effects import bytes_per_row
from raygenome.results.rundir import FORMAT, RunDir, Shard
from raygenome.scoring.ingest import PlanOptions
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.scorer import ScorerConfig
from raygenome.variants.regions import Regions, load_regions

log = logging.getLogger(__name__)

#: What a Parquet file says of each of its columns, statistics and page index included: measured.
_FOOTER_BYTES = 400


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run. `vcf` may be "-"; `options` have no `auto` left in them."""

    vcf: str
    reference: Reference
    model: Path
    spec: registry.ModelSpec
    options: ScoreOptions
    regions: Regions | None

    def identity(self, vcf_sha256: str) -> dict[str, Any]:
        """Return what two runs must have in common to be one run, by plain names."""
        options = self.options.plain()
        for name in ("regions", "regions_file"):
            del options[name]  # what they select decides, not how it was written
        return {
            "vcf sha256": vcf_sha256,
            "fasta sha256": self.reference.digest(),
            "model sha256": registry.model_digest(self.model),
            "raygenome": raygenome.__version__,
            "torch": torch.__version__,
            "processor": torch.cuda.get_device_name() if self.options.device == "cuda" else "cpu",
            "regions sha256": None if self.regions is None else self.regions.digest(),
            **options,
        }

    def plan_options(self) -> PlanOptions:
        """Return what planning needs of the options."""
        return PlanOptions(
            width=self.spec.window,
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
            model=str(self.model.resolve()),
            model_sha256=registry.model_digest(self.model),
            fasta=str(self.reference.path.resolve()),
            fasta_sha256=self.reference.ends_digest(),
            run=str(run.path.resolve()),
            engine=options.engine,
            device=options.device,
            precision=options.precision,
            both_strands=options.strands == "both",
            indel_mode=options.indel_mode,
            columns=options.effects == "full",
            effect_dtype=options.effect_dtype,
            top_k=min(options.top_k, self.spec.targets),
            top_n=options.top_n,
            log_odds=options.log_odds,
            threads=threads,
            shared=shared,
            provenance={
                "format": FORMAT,
                "program": f"raygenome {raygenome.__version__}",
                "model": self.spec.name,
                "identity": identity,
            },
        )

    def bytes_needed(self, shards: Sequence[Shard]) -> int:
        """Return about how many bytes scoring `shards` takes on the disk, at its largest."""
        options = self.options
        datasets = (options.effects == "full") + options.log_odds
        row = bytes_per_row(self.spec.targets, dtype=options.effect_dtype, datasets=datasets)
        tops = sum(8 * self.spec.targets * min(options.top_n, shard.rows) for shard in shards)
        footers = len(shards) * (_FOOTER_BYTES * self.spec.targets * datasets + 10_000)
        return sum(shard.rows for shard in shards) * row + tops + footers


def open_inputs(
    vcf: str | Path, model: str | Path, fasta: str | Path, options: ScoreOptions
) -> Inputs:
    """Open what a run reads, but for the VCF, which is read by planning.

    Raises:
        RaygenomeError: a name that leads nowhere, a damaged file, an option that cannot be met.
    """
    directory = registry.resolve(str(model))
    # Workers load the model; a damaged one must show before there is anything to resume.
    net, spec = registry.check_model(directory)
    reference = Reference.open(Path(fasta))
    regions = None
    if options.regions or options.regions_file:
        contigs = ContigMap(list(reference.contigs))
        beds = [Path(path) for path in options.regions_file]
        regions = load_regions(options.regions, beds, contigs.resolve, known=contigs.contigs)
    options = options.resolved()
    engine, why = choose_engine(options.engine, net)
    if why:
        log.warning("%s is scored with --engine full: %s", spec.name, why)
    options = dataclasses.replace(options, engine=engine)
    return Inputs(str(vcf), reference, directory, spec, options, regions)
