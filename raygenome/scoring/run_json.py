"""The content of run.json, and the return value of the Python API."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

import raygenome
from raygenome.genome.targets import Target
from raygenome.results.run_dir import (
    FORMAT,
    RANKED_TARGETS,
    RANKED_VARIANTS,
    SKIPPED,
    TARGETS,
    RunDir,
)
from raygenome.scoring.inputs import Inputs
from raygenome.scoring.plan import Plan
from raygenome.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

#: The tables beside the parts, in the order of run.json.
_TABLES = (RANKED_VARIANTS, RANKED_TARGETS, SKIPPED, TARGETS)


@dataclass(frozen=True)
class ScoreRun:
    """A finished run.

    Attributes:
        path: where it is, a path or a URL.
        document: the content of its run.json.
    """

    path: Path | str
    document: dict[str, Any]

    @property
    def counts(self) -> dict[str, Any]:
        """Return the numbers of alleles: {read, scored, filtered, skipped: {reason: n}}."""
        return self.document["counts"]

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds that each stage took: {total, plan, score, rank}."""
        return self.document["seconds"]

    def query(self, sql: str) -> "pd.DataFrame":
        """Return the answer of one SELECT over the run's views; see `raygenome query`."""
        from raygenome.results.query import run_sql

        return run_sql(self.path, sql).to_pandas()

    def top(self, n: int = 10, target: str | int | None = None) -> "pd.DataFrame":
        """Return the `n` strongest alleles, over all targets or for one."""
        import pandas as pd

        from raygenome.results.query import top

        return pd.DataFrame(top(self.path, target, n))


def plan_counts(plan: Plan) -> dict[str, Any]:
    """Return the accounting of a plan, in alleles: read = scored + filtered + all skipped."""
    return {
        "read": plan.read,
        "scored": plan.scorable,
        "filtered": plan.filtered,
        "skipped": plan.skipped,
    }


def part_entries(receipts: list[dict[str, Any]], dataset: str) -> list[dict[str, Any]]:
    """Return the entries of run.json for the parts of a dataset, in plan order."""
    about = ("shard", "chrom", "first_pos", "last_pos")
    return [
        {**file, **{name: receipt[name] for name in about}}
        for receipt in receipts
        for file in receipt["files"]
        if file["dataset"] == dataset
    ]


def run_document(
    run: RunDir,
    plan: Plan,
    inputs: Inputs,
    identity: dict[str, Any],
    receipts: list[dict[str, Any]],
    tables: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the content of run.json without the seconds.

    Args:
        run: the run directory.
        plan: its plan.
        inputs: its inputs.
        identity: `inputs.run_identity`.
        receipts: of every shard, in order.
        tables: the {bytes, sha256} of each table beside the parts, by name.
    """
    return {
        "format": FORMAT,
        "program": f"raygenome {raygenome.__version__}",
        "config": {"device": inputs.workers.compute.device, **inputs.options.plain()},
        "identity": identity,
        "inputs": _input_entries(plan, inputs),
        "counts": plan_counts(plan),
        "ref_mismatches": plan.mismatched,
        "parts": part_entries(receipts, "scores"),
        "files": [
            *(_table_entry(run.store, name, tables[name]) for name in _TABLES),
            *part_entries(receipts, "log_odds"),
        ],
    }


def publish_targets(run: RunDir, targets: list[Target]) -> dict[str, Any]:
    """Publish targets.parquet, one row per target column; return its {bytes, sha256}."""
    table = pa.Table.from_pylist([target._asdict() for target in targets])
    temporary = run.store.temporary_file(TARGETS)
    pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    return run.store.publish(temporary, TARGETS)


def _table_entry(store: Store, name: str, published: dict[str, Any]) -> dict[str, Any]:
    with store.open(name) as file:  # only the footer is read
        rows = pq.read_metadata(file).num_rows
    return {"path": name, "rows": rows, **published}


def _input_entries(plan: Plan, inputs: Inputs) -> dict[str, Any]:
    return {
        "vcf": {
            "path": inputs.vcf,
            "bytes": plan.vcf_bytes,
            "sha256": plan.vcf_sha256,
            "version": plan.vcf_version,
            "ranged": plan.vcf_ranged,
            "records": plan.records,
        },
        "fasta": {
            "path": inputs.fasta,
            "bytes": inputs.reference.path.stat().st_size,
            "sha256": inputs.reference.digest(),
        },
        "model": {
            "path": inputs.model.place,
            "name": inputs.model.spec.name,
            "architecture": inputs.model.spec.architecture,
            "weights_sha256": inputs.model.spec.weights_sha256,
        },
    }
