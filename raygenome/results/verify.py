"""Verifying that a run directory is still what was written: every file, every byte, every count.

Parquet readers do not notice a flipped bit in a value. So the SHA-256 of each file is compared with
run.json, and that of run.json with _SUCCESS.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.errors import DataError
from raygenome.results.open_run import require_finished
from raygenome.results.run_dir import (
    RANKED_TARGETS,
    RANKED_VARIANTS,
    RUN_JSON,
    SKIPPED,
    SUCCESS,
    TARGETS,
    read_run,
)
from raygenome.storage.store import Store

_BATCH = 65_536


@dataclass(frozen=True)
class Report:
    """The result of `verify`: how much was checked, and a line for each problem."""

    path: Path | str
    files: int
    bytes: int
    problems: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(path: Path | str, *, deep: bool = False) -> Report:
    """Compare the files of a finished run with its records.

    Args:
        path: the run directory, or its URL.
        deep: also decode every page of every part and check its own checksum. This is about eight
            times slower, and additionally finds only damage from before a file was first hashed.

    Raises:
        NoInput: there is no run.
        DataError: it is unfinished.
    """
    store = require_finished(path)
    sizes = store.sizes()
    sealed = sizes[RUN_JSON] + sizes[SUCCESS]
    problems = list(_seal_problems(store))
    if problems:
        # Nothing in run.json can be relied on.
        return Report(path, 2, sealed, problems)
    try:
        document = read_run(store)
    except DataError as error:
        return Report(path, 2, sealed, [str(error)])
    entries = [*document["parts"], *document["files"]]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda entry: _file_problem(store, sizes, entry), entries))
    problems = [problem for problem in found if problem]
    damaged = {entry["path"] for entry, problem in zip(entries, found, strict=True) if problem}
    problems += _listing_problems(sizes, entries)
    problems += _count_problems(document)
    for name, check in {
        SKIPPED: _skipped_problems,
        RANKED_VARIANTS: _ranked_problems,
        RANKED_TARGETS: _ranked_targets_problems,
    }.items():
        if name not in damaged and name in sizes:
            problems += [f"{name}: {problem}" for problem in check(store, document)]
    if deep:
        whole = [entry["path"] for entry in entries if entry["path"] not in damaged]
        problems += [problem for name in whole for problem in _page_problems(store, name)]
    return Report(path, len(entries) + 2, sum(entry["bytes"] for entry in entries), problems)


def _seal_problems(store: Store) -> Iterator[str]:
    """Compare run.json with _SUCCESS, which holds its size, its SHA-256 and its counts."""
    try:
        success = json.loads(store.read(SUCCESS))
    except ValueError:
        yield "_SUCCESS is damaged: it is not JSON"
        return
    content = store.read(RUN_JSON)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if not isinstance(success, dict) or success.get("run.json") != entry:
        yield "run.json and _SUCCESS do not belong together: one of them was changed"
    elif success != {"run.json": entry, "counts": json.loads(content)["counts"]}:
        yield "_SUCCESS is damaged: its counts differ from those in run.json"


def _file_problem(store: Store, sizes: dict[str, int], entry: dict[str, Any]) -> str | None:
    """Compare one file with its entry in run.json."""
    name = entry["path"]
    if not store.is_inside(name):
        return f"{name}: lies outside the run directory"
    if name not in sizes:
        return f"{name}: is missing"
    if sizes[name] != entry["bytes"]:
        return f"{name}: has {sizes[name]} bytes, run.json says {entry['bytes']}"
    digest = store.digest(name)
    if digest != entry["sha256"]:
        return f"{name}: is damaged (sha256 {digest[:12]}..., written {entry['sha256'][:12]}...)"
    try:
        with store.open(name) as file:
            rows = pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException) as error:
        return f"{name}: cannot be read as Parquet ({_one_line(error)})"
    if rows != entry["rows"]:
        return f"{name}: has {rows} rows, run.json says {entry['rows']}"
    return None


def _listing_problems(sizes: dict[str, int], entries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Parquet files that run.json does not list, or lists twice."""
    listed = Counter(entry["path"] for entry in entries)
    for name, times in listed.items():
        if times > 1:
            yield f"{name}: is listed {times} times in run.json"
    for name in sorted(name for name in sizes if name.endswith(".parquet")):
        if name not in listed:
            yield f"{name}: is not a file of this run; move it elsewhere"


def _count_problems(document: dict[str, Any]) -> Iterator[str]:
    """Check the accounting, in alleles: read = scored + skipped + filtered, parts = scored."""
    counts = document["counts"]
    scored, skipped = counts["scored"], sum(counts["skipped"].values())
    if counts["read"] != scored + skipped + counts["filtered"]:
        yield (
            f"run.json: {counts['read']} alleles were read, which is not {scored} scored + "
            f"{skipped} skipped + {counts['filtered']} filtered"
        )
    datasets: Counter[str] = Counter({"scores": 0})
    for entry in [*document["parts"], *document["files"]]:
        if "shard" in entry:
            datasets[entry["path"].split("/")[0]] += entry["rows"]
    for dataset, rows in datasets.items():
        if rows != scored:
            yield f"{dataset}: its parts hold {rows} alleles, run.json says {scored} were scored"


def _skipped_problems(store: Store, document: dict[str, Any]) -> Iterator[str]:
    found: Counter[str] = Counter()
    for batch in _batches(store, SKIPPED, ["reason"]):
        found.update(batch["reason"].to_pylist())
    wanted = Counter(document["counts"]["skipped"])
    for reason in sorted(set(found) | set(wanted)):
        if found[reason] != wanted[reason]:
            yield f"{found[reason]} rows of {reason}, run.json says {wanted[reason]}"


def _ranked_problems(store: Store, document: dict[str, Any]) -> Iterator[str]:
    """Check that ranks are 1, 2, 3 ... up to the number of scored alleles, in order of score."""
    rank, last = 0, np.float32(np.inf)
    for batch in _batches(store, RANKED_VARIANTS, ["rank", "score"]):
        ranks, scores = batch["rank"].to_numpy(), batch["score"].to_numpy()
        if not (ranks == np.arange(rank + 1, rank + 1 + len(ranks))).all():
            yield f"the ranks from row {rank} on are not 1, 2, 3 ..."
            return
        if not (np.diff(scores, prepend=last) <= 0).all():
            yield f"the scores from row {rank} on are not in descending order"
            return
        rank, last = rank + len(ranks), scores[-1]
    if rank != document["counts"]["scored"]:
        yield f"ranks {rank} alleles, run.json says {document['counts']['scored']} were scored"


def _ranked_targets_problems(store: Store, document: dict[str, Any]) -> Iterator[str]:
    targets = next(f["rows"] for f in document["files"] if f["path"] == TARGETS)
    wanted = targets * min(document["config"]["top_n"], document["counts"]["scored"])
    with store.open(RANKED_TARGETS) as file:
        rows = pq.read_metadata(file).num_rows
    if rows != wanted:
        yield f"has {rows} rows, the run needs {wanted}"


def _page_problems(store: Store, name: str) -> Iterator[str]:
    """Decode a whole file and check the checksum of each page."""
    try:
        for _ in _batches(store, name, None):
            pass
    except (OSError, pa.ArrowException) as error:
        yield f"{name}: a page is damaged ({_one_line(error)})"


def _batches(store: Store, name: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    with (
        store.open(name) as source,
        pq.ParquetFile(source, page_checksum_verification=True) as file,
    ):
        yield from file.iter_batches(_BATCH, columns=columns)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
