"""Checks of run directories, for runs that ended normally and for runs that failed."""

import json
from collections.abc import Iterator
from pathlib import Path

from raygenome.results.run_dir import read_run
from raygenome.results.verify import verify
from raygenome.storage.files import file_sha256


def digests(run: Path) -> dict[str, str]:
    """Return the digest of every file below a folder whose bytes must be equal in equal runs."""
    return {str(path.relative_to(run)): file_sha256(path) for path in run.rglob("*.parquet")}


def committed_wrongly(run: Path, right: dict[str, Path]) -> Iterator[str]:
    """Yield each file named by the receipts, plan or run.json that is incomplete or wrong."""
    whole = {name: digests(path) for name, path in right.items()}
    for name, digest in digests(run).items():
        if digest not in [found.get(name) for found in whole.values()]:
            yield f"{name} is not whole"
    plan = run / ".work" / "plan"
    if (plan / "plan.json").exists() and not (run / "_SUCCESS").exists():
        for name, digest in json.loads((plan / "plan.json").read_text())["files"].items():
            if file_sha256(plan / name) != digest:
                yield f"{name} of the plan is not whole"
        model = json.loads((plan / "identity.json").read_text())["model sha256"]
        (expected,) = (whole[name] for name in right if digest_of(right[name]) == model)
        for receipt in (run / ".work" / "receipts").rglob("*.json"):
            for file in json.loads(receipt.read_text())["files"]:
                if file_sha256(run / file["path"]) != file["sha256"]:
                    yield f"{receipt.name} names {file['path']}, which is not whole"
                if file["dataset"] == "scores" and file["sha256"] != expected[file["path"]]:
                    yield f"{receipt.name} names {file['path']} of another run"
    if (run / "_SUCCESS").exists():
        named = json.loads((run / "_SUCCESS").read_text())["run.json"]["sha256"]
        if file_sha256(run / "run.json") != named:
            yield "_SUCCESS is not that of run.json"
        if not verify(run, deep=True).whole:
            yield "the run is marked as whole and is not"


def digest_of(run: Path) -> str:
    """Return the digest of the model of a finished run."""
    return read_run(run)["identity"]["model sha256"]


def finished_wrongly(run: Path, right: Path, *, swept: bool = False) -> Iterator[str]:
    """Yield the differences between a finished run and an undisturbed one."""
    if not (run / "_SUCCESS").exists():
        yield "there is no _SUCCESS"
        return
    found, expected = files(run), files(right)
    if not swept:
        found = {name for name in found if name.split("/")[0] != ".work"}
    if found != expected:
        yield f"left over: {sorted(found - expected)}, missing: {sorted(expected - found)}"
    if digests(run) != digests(right):
        yield "its tables are not those of an undisturbed run"
    if read_run(run)["counts"] != read_run(right)["counts"]:
        yield "its counts are not those of an undisturbed run"


def files(run: Path) -> set[str]:
    """Return the names of a run's files and folders; progress.json is no part of the result."""
    return {str(path.relative_to(run)) for path in run.rglob("*")} - {"progress.json"}
