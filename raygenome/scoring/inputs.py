"""The inputs of a scoring run: opened, and identified by content."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import raygenome
from raygenome.cluster.compute import Compute
from raygenome.cluster.resources import joined_machines
from raygenome.engines.choice import choose_engine
from raygenome.genome.contigs import ContigMap
from raygenome.genome.fasta import Reference
from raygenome.genome.intervals import Regions, load_regions
from raygenome.registry.model import Model
from raygenome.scoring.options import ScoreOptions
from raygenome.scoring.workers import Workers, find_workers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run, opened, except for the VCF, which planning reads.

    Attributes:
        vcf: a path, a URL, or "-".
        fasta: the path or URL of the genome.
        reference: the genome, opened.
        model: the model.
        regions: the regions that the options name; None for all.
        options: their engine is not "auto" any more.
        workers: the machines that score.
    """

    vcf: str
    fasta: str
    reference: Reference
    model: Model
    regions: Regions | None
    options: ScoreOptions
    workers: Workers


@contextmanager
def open_inputs(
    vcf: str | Path,
    model: str | Path,
    fasta: str | Path,
    compute: Compute,
    options: ScoreOptions,
) -> Iterator[Inputs]:
    """Open the model, the genome and the regions, and connect to the cluster, if there is one.

    Raises:
        RaygenomeError: an input does not exist or is damaged, an option cannot be met, or the
            cluster cannot be used.
    """
    in_process = compute.n_workers() == 0
    with joined_machines(
        compute.address, insecure=compute.insecure, in_process=in_process
    ) as machines:
        opened = Model.open(model)
        # Workers load the model later; a damaged one must show before there is anything to resume.
        opened.check()
        reference = Reference.open(fasta)
        regions = None
        if options.regions or options.regions_file:
            contigs = ContigMap(list(reference.contigs))
            beds = [str(path) for path in options.regions_file]
            regions = load_regions(options.regions, beds, contigs.resolve, known=contigs.contigs)
        engine, why = choose_engine(options.engine, opened.empty_net())
        if why:
            log.warning("%s is scored with --engine full: %s", opened.spec.name, why)
        yield Inputs(
            vcf=str(vcf),
            fasta=str(fasta),
            reference=reference,
            model=opened,
            regions=regions,
            options=dataclasses.replace(options, engine=engine),
            workers=find_workers(compute, machines, precision=options.precision),
        )


def run_identity(inputs: Inputs, vcf_sha256: str) -> dict[str, Any]:
    """Return the values that must be equal in two runs to be the same run.

    Args:
        inputs: the inputs.
        vcf_sha256: the digest of the VCF.
    """
    options = inputs.options.plain()
    for name in ("regions", "regions_file"):
        del options[name]  # the selected regions count, not the text of the options
    return {
        "vcf sha256": vcf_sha256,
        "fasta sha256": inputs.reference.digest(),
        "model sha256": inputs.model.digest,
        "raygenome": raygenome.__version__,
        "torch": inputs.workers.torch,
        "processor": inputs.workers.processor,
        "regions sha256": None if inputs.regions is None else inputs.regions.digest(),
        "device": inputs.workers.compute.device,
        **options,
    }
