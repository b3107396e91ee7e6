"""The run directory: the names in it, and the protocol by which a file comes to exist.

A file is written under a temporary name, flushed, and published: renamed in a folder, uploaded to
an object store. So a file that has its final name is whole. A part counts only once its receipt (a
JSON file with its SHA-256) exists too; readers list files from `run.json`, never by a glob.

    DIR/.work/lock            held by the process that writes (`writers/` in an object store)
    DIR/.work/kind            says that this is a scoring run
    DIR/.work/plan/           plan.json, written last, the files that it names by digest, and key
    DIR/.work/receipts/KEY/   part-00012.json: one a committed part; KEY is the run's own
    DIR/.work/tops/KEY/       part-00012: the strongest effects of each target in that part
    DIR/.work/summaries/KEY/  part-00012: what ranking needs of each of its alleles
    DIR/.work/tmp/            files being written; swept when a run starts
    DIR/scores/...            see the README
    DIR/progress.json         how far the run is, or was
    DIR/failed.json           the shards that were given up, where there are any
    DIR/run.json, _SUCCESS    written last; then .work is removed

In an object store the name of a part has twelve digits of its SHA-256 in it, so that no name ever
stands for two contents, and what a lost worker uploads late is beside the run and not in it.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, OutputError, StorageError
from raygenome.genome.contigs import partition_value
from raygenome.storage.files import file_sha256
from raygenome.storage.object_store import open_store
from raygenome.storage.store import Kind, Store

log = logging.getLogger(__name__)

FORMAT = 1

RUN_JSON = "run.json"
SUCCESS = "_SUCCESS"
SKIPPED = "skipped.parquet"
TARGETS = "targets.parquet"
RANKED_VARIANTS = "ranked/variants.parquet"
RANKED_TARGETS = "ranked/targets.parquet"
PROGRESS = "progress.json"
FAILED = "failed.json"
PLAN = ".work/plan"

_PLAN_JSON = f"{PLAN}/plan.json"
_WORK = ".work"
_KEY = f"{PLAN}/key"
_DRAFT = "plan"


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

    def __str__(self) -> str:
        """Return what a person may know it by."""
        return f"{self.index} ({self.chrom}, {self.rows:,} alleles)"


class RunDir:
    """Names of the files of a run, and how they are written.

    Args:
        place: a folder, or a URL in an object store.
        key: tells a run from others that were or will be at the place; it is in the names of what
            its workers leave for it, so that what a lost worker of another writes is not taken in.

    Attributes:
        store: where the files lie.
        began: whether a plan was committed through this object.
    """

    KIND = Kind("scoring run", finished=SUCCESS, started=_PLAN_JSON, proof=(SUCCESS, RUN_JSON))

    def __init__(self, place: str | Path, key: str = "") -> None:
        self.store: Store = open_store(place)
        self.key = key
        self.began = False

    @property
    def place(self) -> str:
        """The run as the user named it."""
        return self.store.place

    def part(self, dataset: str, chrom: str, shard: int, digest: str) -> str:
        """Return the name of the part of `shard`; `chrom` is a display name such as chr22."""
        mark = "" if self.store.renames else f".{digest[:12]}"
        return f"{dataset}/chrom={partition_value(chrom)}/part-{shard:05d}{mark}.parquet"

    def publish_part(self, temporary: Path, dataset: str, chrom: str, shard: int) -> dict[str, Any]:
        """Publish a part; return its {path, bytes, sha256}."""
        digest = "" if self.store.renames else file_sha256(temporary)
        name = self.part(dataset, chrom, shard, digest)
        return {"path": name, **self.store.publish(temporary, name)}

    def publish_working(self, temporary: Path, kind: str, shard: int) -> dict[str, Any]:
        """Publish what ranking needs of `shard`, tops or summaries; {path, bytes, sha256}."""
        name = f"{self._working(kind)}/part-{shard:05d}"
        return {"path": name, **self.store.publish(temporary, name)}

    def publish_receipt(self, receipt: dict[str, Any]) -> None:
        """Say that a shard is committed."""
        name = f"{self._working('receipts')}/part-{receipt['shard']:05d}.json"
        self.store.publish_json(receipt, name)

    def _working(self, kind: str) -> str:
        return f"{_WORK}/{kind}/{self.key}"

    def require_current(self) -> None:
        """Refuse to go on for a run that another has replaced: asked before a part is published.

        Raises:
            OutputError: another run is at the place, or none any more.
        """
        try:
            current = self.store.read(_KEY).decode()
        except FileNotFoundError:
            current = ""
        if current != self.key:
            raise OutputError(
                f"{self.place} was taken over by another raygenome while this one was at work there"
            )

    def committed(self) -> dict[int, dict[str, Any]]:
        """Return the receipts of the parts that are there whole, by shard.

        In a folder every byte is read again: what is built from a damaged part would be wrong in
        silence. An object store checks what it holds by itself, so there sizes are enough.
        """
        names = sorted(self.store.sizes(self._working("receipts")))
        if not names:
            return {}
        sizes = self.store.sizes()
        # An object store answers slowly, and many at a time.
        with ThreadPoolExecutor(os.cpu_count() if self.store.renames else 32) as threads:
            found = threads.map(lambda name: self._whole_receipt(name, sizes), names)
            return {receipt["shard"]: receipt for receipt in found if receipt is not None}

    def _whole_receipt(self, name: str, sizes: dict[str, int]) -> dict[str, Any] | None:
        """Return a receipt whose files are all there, None for any other."""
        try:
            receipt: dict[str, Any] = json.loads(self.store.read(name))
        except ValueError:
            return None  # a receipt that says nothing is no receipt: the shard is scored again
        whole = all(self.store.is_whole(file, sizes) for file in receipt["files"])
        return receipt if whole else None

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self.store.exists(_PLAN_JSON)

    @property
    def finished(self) -> bool:
        """Whether the run is marked as whole."""
        return self.store.exists(SUCCESS)

    @property
    def draft(self) -> Path:
        """Return the local folder in which a plan is made."""
        return self.store.temp_dir / _DRAFT

    def commit_plan(self) -> None:
        """Make the draft the plan."""
        (self.draft / "key").write_text(self.key)
        try:
            self.store.publish_folder(self.draft, PLAN, last="plan.json")
        except BaseException:
            with suppress(OSError, StorageError):
                self.began = self.planned
            raise
        self.began = True

    def abandon(self) -> None:
        """Leave the place as it was found, after planning failed and before any commit."""
        with suppress(OSError, StorageError):  # what went wrong before is what to tell
            shutil.rmtree(self.draft, ignore_errors=True)
            if self.planned or self.store.exists(RUN_JSON):
                return  # an earlier run, which --overwrite would have replaced
            self.store.remove(self.store.working, PROGRESS)
            self.store.remove_if_created()

    def clear(self) -> None:
        """Remove an earlier run's files, marks of completeness first; the draft of a plan stays."""
        self.store.remove(SUCCESS, RUN_JSON, _PLAN_JSON, FAILED, SKIPPED, TARGETS)
        self.store.remove("scores", "log_odds", "ranked", PLAN)
        self.store.remove(*(f"{_WORK}/{kind}" for kind in ("receipts", "tops", "summaries")))

    def finish(self, listed: set[str]) -> None:
        """Remove what only an unfinished run needs, and parts that are none of the `listed`."""
        try:
            self.store.remove(FAILED)
            if not self.store.renames:
                parts = [*self.store.sizes("scores"), *self.store.sizes("log_odds")]
                self.store.remove(*(name for name in parts if name not in listed))
            self.store.remove_working()
        except (OSError, StorageError) as error:  # the run is whole all the same
            log.warning(
                "%s: working files stay behind (%s); --resume removes them", self.place, error
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            OutputError: another process has it.
        """
        with self.store.lock(self.KIND):
            yield


def claim(place: str | Path, *, resume: bool, overwrite: bool) -> RunDir:
    """Make `place` ready to be written to, or refuse; what is there stays for now.

    Raises:
        OutputError: something is there and neither `resume` nor `overwrite` was asked for; or it
            is no run, so that `overwrite` would remove somebody's files; or it cannot be made.
    """
    run = RunDir(place)
    run.store.claim(run.KIND, resume=resume, overwrite=overwrite)
    return run


def read_run(run: Store | str | Path) -> dict[str, Any]:
    """Return the run.json of a finished run, by its store or its place.

    Raises:
        DataError: it is damaged or of a format that this version does not know.
    """
    store = run if isinstance(run, Store) else open_store(run)
    path = store.shown(RUN_JSON)
    try:
        document = json.loads(store.read(RUN_JSON))
    except (FileNotFoundError, ValueError):
        document = None
    if not isinstance(document, dict):
        raise DataError(f"{path} is damaged; score again with --overwrite")
    if (found := document.get("format")) != FORMAT:
        raise DataError(f"{path} has format {found!r}; this raygenome reads {FORMAT}")
    for key in ("config", "counts", "parts", "files"):
        if key not in document:
            raise DataError(f"{path} is damaged: it has no {key!r}; score again with --overwrite")
    return document
