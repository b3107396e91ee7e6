"""The run directory: the names in it, and the protocol by which a file comes to exist.

A file is written under a temporary name in `.work/`, flushed to the disk, and renamed; the folder
is flushed after it. So a file that has its final name is whole. A part counts only once its receipt
(a JSON file with its SHA-256) exists too; readers list files from `run.json`, never by a glob.

    DIR/.work/lock            held by the process that writes
    DIR/.work/kind            says that this is a scoring run
    DIR/.work/plan/           plan.json, alleles.arrow, skipped.draft: renamed as one folder
    DIR/.work/receipts/       part-00012.json: one a committed part
    DIR/.work/tops/           part-00012.npy: the strongest effects of each target in that part
    DIR/.work/tmp/            files being written; swept when a run starts
    DIR/scores/...            see the README
    DIR/run.json, _SUCCESS    written last; then .work is removed
"""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygenome.disk import file_sha256
from raygenome.errors import DataError, OutputError, StorageError
from raygenome.genome.contigs import partition_value
from raygenome.output import OutputFolder

FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """Consecutive alleles of one contig: rows [begin, end) of the plan's alleles."""

    index: int
    contig: str
    chrom: str
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """How many alleles it holds."""
        return self.end - self.begin


class RunDir(OutputFolder):
    """Names of the files of a run, and how they are written."""

    KIND = "scoring run"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.plan = self.work / "plan"
        self.draft = self.work / "plan.tmp"
        self.receipts = self.work / "receipts"
        self.tops = self.work / "tops"
        self.run_json = path / "run.json"
        self.success = path / "_SUCCESS"
        self.skipped = path / "skipped.parquet"
        self.targets = path / "targets.parquet"
        self.ranked_variants = path / "ranked" / "variants.parquet"
        self.ranked_targets = path / "ranked" / "targets.parquet"
        self.made = False

    def part(self, dataset: str, chrom: str, shard: int) -> Path:
        """Return where the part of `shard` lies; `chrom` is a display name such as chr22."""
        folder = self.path / dataset / f"chrom={partition_value(chrom)}"
        return folder / f"part-{shard:05d}.parquet"

    def receipt(self, shard: int) -> Path:
        """Return where the receipt of `shard` lies."""
        return self.receipts / f"part-{shard:05d}.json"

    def top(self, shard: int) -> Path:
        """Return where the strongest effects of `shard` lie."""
        return self.tops / f"part-{shard:05d}.npy"

    def committed(self) -> dict[int, dict[str, Any]]:
        """Return the receipts of the parts that are there whole, by shard.

        Every byte is read again: what is built from a damaged part would be wrong in silence.
        """
        found = {}
        for path in sorted(self.receipts.glob("part-*.json")):
            try:
                receipt = json.loads(path.read_text())
            except ValueError:
                continue  # a receipt that says nothing is no receipt: the shard is scored again
            if all(self._has(file) for file in receipt["files"]):
                found[receipt["shard"]] = receipt
        return found

    def _has(self, file: dict[str, Any]) -> bool:
        path = self.path / file["path"]
        whole = path.is_file() and path.stat().st_size == file["bytes"]
        return whole and file_sha256(path) == file["sha256"]

    def abandon(self) -> None:
        """Leave the directory as it was found, after planning failed and before any commit."""
        shutil.rmtree(self.draft, ignore_errors=True)
        if self.plan.exists() or self.run_json.exists():
            return  # an earlier run, which --overwrite would have replaced
        shutil.rmtree(self.work, ignore_errors=True)
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def clear(self) -> None:
        """Remove an earlier run's files, marks of completeness first; the draft of a plan stays."""
        for file in (self.success, self.run_json, self.skipped, self.targets):
            file.unlink(missing_ok=True)
        for name in ("scores", "log_odds", "ranked"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in (self.plan, self.receipts, self.tops, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)


def claim(path: Path, *, resume: bool, overwrite: bool) -> RunDir:
    """Make `path` ready to be written to, or refuse; what is there stays for now.

    Raises:
        OutputError: something is there and neither `resume` nor `overwrite` was asked for; or it
            is no run, so that `overwrite` would remove somebody's files; or it cannot be made.
    """
    run = RunDir(path)
    run.require_folder()
    if path.is_dir() and any(path.iterdir()):
        ours = run.run_json.exists() or run.success.exists() or run.work.exists()
        if not ours or run.kind_begun() not in (run.KIND, None):
            raise OutputError(
                f"{path} is not empty and holds no raygenome run; choose another --out"
            )
        begun = run.run_json.exists() or run.success.exists() or run.plan.exists()
        if begun and not (overwrite or resume):
            state = "a finished run" if run.success.exists() else "an unfinished run"
            raise OutputError(
                f"{path} holds {state}; add --resume or --overwrite, or choose another --out"
            )
    run.made = not path.exists()
    run.make()
    return run


def read_run(path: Path) -> dict[str, Any]:
    """Return the run.json of a finished run.

    Raises:
        DataError: it is damaged or of a format that this version does not know.
    """
    try:
        run = json.loads((path / "run.json").read_text())
    except (OSError, ValueError):
        run = None
    if not isinstance(run, dict):
        raise DataError(f"{path / 'run.json'} is damaged; score again with --overwrite")
    if run.get("format") != FORMAT:
        raise DataError(
            f"{path / 'run.json'} has format {run.get('format')!r}; this raygenome reads {FORMAT}"
        )
    for key in ("config", "counts", "parts", "files"):
        if key not in run:
            raise DataError(
                f"{path / 'run.json'} is damaged: it has no {key!r}; score again with --overwrite"
            )
    return run


def require_space(path: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        StorageError: less than `needed` bytes are free where `path` lies.
    """
    free = shutil.disk_usage(path).free
    if free < needed:
        raise StorageError(
            f"{path} has {_size(free)} free and the run needs about {_size(needed)}; "
            "free some space, choose another --out, or use --effects top"
        )


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
