"""Finished run directories made by hand: parts by pyarrow, rankings by plain sorting of tuples."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.genome.targets import Target

KEYS = ["chrom", "pos", "id", "ref", "alt"]
TOP = pa.list_(pa.struct([("target", pa.int16()), ("diff", pa.float32())]))


def columns_of(text: str) -> pa.Schema:
    """Return the schema that `text` spells: name:type, strings where there is no type."""
    pairs = [column.partition(":") for column in text.split()]
    return pa.schema([(name, pa.type_for_alias(kind or "string")) for name, _, kind in pairs])


SCHEMAS = {
    "ranked/variants.parquet": columns_of(
        "rank:int64 score:float32 chrom pos:int32 id ref alt target:int16 name diff:float32"
    ),
    "ranked/targets.parquet": columns_of(
        "target:int16 rank:int32 chrom pos:int32 id ref alt diff:float32"
    ),
    "skipped.parquet": columns_of("chrom pos:int32 id ref alt record:int64 allele:int32 reason"),
    "targets.parquet": columns_of("target:int16 name cell assay treatment category"),
}


@dataclass
class MadeRun:
    """A run directory and its content: rows in plan order, effects (rows, targets)."""

    path: Path
    targets: list[Target]
    rows: list[dict[str, Any]]
    effects: np.ndarray
    starts: list[int] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    top_n: int = 7

    def ranked_variants(self) -> list[dict[str, Any]]:
        """Return the rows of ranked/variants.parquet, by sorting."""
        score = np.abs(self.effects).max(axis=1)
        order = sorted(range(len(self.rows)), key=lambda row: (-score[row], row))
        ranked = []
        for rank, row in enumerate(order, start=1):
            target = strongest_targets(self.effects[row], 1)[0]
            ranked.append(
                {
                    "rank": rank,
                    "score": score[row],
                    **{key: self.rows[row][key] for key in KEYS},
                    "target": target,
                    "name": self.targets[target].name,
                    "diff": self.effects[row, target] + 0.0,
                }
            )
        return ranked

    def ranked_targets(self) -> list[dict[str, Any]]:
        """Return the rows of ranked/targets.parquet, by sorting."""
        ranked = []
        for target in range(len(self.targets)):
            diff = self.effects[:, target]
            order = sorted(range(len(self.rows)), key=lambda row: (-abs(diff[row]), row))
            for rank, row in enumerate(order[: self.top_n], start=1):
                keys = {key: self.rows[row][key] for key in KEYS}
                ranked.append({"target": target, "rank": rank, **keys, "diff": diff[row] + 0.0})
        return ranked


def strongest_targets(effects: np.ndarray, k: int) -> list[int]:
    """Return the targets of the k strongest effects of one allele."""
    return sorted(range(len(effects)), key=lambda target: (-abs(effects[target]), target))[:k]


def draw_effects(rng: np.random.Generator, rows: int, targets: int) -> np.ndarray:
    """Return float32 effects with many ties, and zeros of both signs."""
    values = rng.normal(size=40).astype(np.float32)
    values = np.concatenate([values, -values, np.array([0.0, -0.0, 1e-40], np.float32)])
    return rng.choice(values, (rows, targets))


def make_run(
    path: Path,
    rng: np.random.Generator,
    *,
    sizes: tuple[tuple[str, int], ...] = (("chr2", 30), ("chr2", 21), ("chr10", 17), ("chrX", 1)),
    targets: int = 5,
    top_k: int = 3,
    columns: bool = True,
) -> MadeRun:
    """Write a whole run: one part for each (chrom, rows) of `sizes`, in plan order."""
    table = [
        Target(i, f"Cell{i % 3}_T{i}", f"Cell{i % 3}", f"T{i}", "", "x") for i in range(targets)
    ]
    made = MadeRun(path, table, [], np.empty((0, targets), np.float32))
    blocks, entries = [], []
    for shard, (chrom, count) in enumerate(sizes):
        effects = draw_effects(rng, count, targets)
        rows = _draw_rows(rng, chrom, count, len(made.rows))
        part = path / "scores" / f"chrom={chrom}" / f"part-{shard:05d}.parquet"
        write(part, part_table(rows, effects, table, top_k=top_k, columns=columns))
        made.starts.append(len(made.rows))
        made.parts.append(part)
        made.rows += rows
        blocks.append(effects)
        about = {"first_pos": rows[0]["pos"], "last_pos": rows[-1]["pos"]}
        entries.append({**entry(path, part), "shard": shard, "chrom": chrom, **about})
    made.effects = np.concatenate([made.effects, *blocks])
    reasons = ["no_alt", "no_alt", "symbolic", "ref_mismatch"]
    skipped = [
        {**_draw_rows(rng, "chr2", 1, 9000 + i)[0], "reason": reason}
        for i, reason in enumerate(reasons)
    ]
    tables = {
        "ranked/variants.parquet": made.ranked_variants(),
        "ranked/targets.parquet": made.ranked_targets(),
        "skipped.parquet": skipped,
        "targets.parquet": [target._asdict() for target in table],
    }
    for name, content in tables.items():
        write(path / name, pa.Table.from_pylist(content, schema=SCHEMAS[name]))
    scored = len(made.rows)
    counts = {
        "read": scored + 4 + 2,
        "scored": scored,
        "filtered": 2,
        "skipped": {"no_alt": 2, "ref_mismatch": 1, "symbolic": 1},
    }
    document = {
        "format": 1,
        "program": "raygenome 0",
        "config": {"effects": "full" if columns else "top", "top_n": made.top_n},
        "inputs": {},
        "counts": counts,
        "seconds": {},
        "parts": entries,
        "files": [entry(path, path / name) for name in tables],
    }
    seal(path, document)
    return made


def part_table(
    rows: list[dict[str, Any]],
    effects: np.ndarray,
    targets: list[Target],
    *,
    top_k: int,
    columns: bool,
    dtype: type = np.float16,
) -> pa.Table:
    """Return the content of a part."""
    top = [
        [{"target": t, "diff": effect[t] + 0.0} for t in strongest_targets(effect, top_k)]
        for effect in effects
    ]
    fields = {
        "chrom": pa.array([row["chrom"] for row in rows], pa.string()),
        "pos": pa.array([row["pos"] for row in rows], pa.int32()),
        **{key: pa.array([row[key] for row in rows], pa.string()) for key in ("id", "ref", "alt")},
        "record": pa.array([row["record"] for row in rows], pa.int64()),
        "allele": pa.array([row["allele"] for row in rows], pa.int16()),
        "score": pa.array(np.abs(effects).max(axis=1)),
        "top": pa.array(top, TOP),
    }
    if columns:
        fields |= {t.name: pa.array(effects[:, t.target].astype(dtype)) for t in targets}
    return pa.table(fields)


def write(path: Path, table: pa.Table) -> None:
    """Write a Parquet file as the program does: zstd, page checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def entry(root: Path, path: Path) -> dict[str, Any]:
    """Return the entry of a file in run.json."""
    data = path.read_bytes()
    return {
        "path": str(path.relative_to(root)),
        "rows": pq.read_metadata(path).num_rows,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def seal(path: Path, document: dict[str, Any]) -> None:
    """Write run.json, and the _SUCCESS that goes with it."""
    path.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(document, indent=1) + "\n").encode()
    (path / "run.json").write_bytes(data)
    digest = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    success = {"run.json": digest, "counts": document["counts"]}
    (path / "_SUCCESS").write_text(json.dumps(success, indent=1) + "\n")


def _draw_rows(
    rng: np.random.Generator, chrom: str, count: int, first: int
) -> list[dict[str, Any]]:
    """Return the key columns of `count` alleles, sorted as a plan is."""
    rows = [
        {
            "chrom": chrom,
            "pos": int(rng.integers(1, 40)),
            "id": f"rs{int(rng.integers(1e6))}" if rng.random() < 0.7 else ".",
            "ref": str(rng.choice(["A", "C", "CA"])),
            "alt": str(rng.choice(["G", "T", "TT"])),
            "record": first + i,
            "allele": int(rng.integers(1, 3)),
        }
        for i in range(count)
    ]
    return sorted(rows, key=lambda row: [row[k] for k in ("pos", "ref", "alt", "record", "allele")])
