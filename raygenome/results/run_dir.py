"""The run directory: the names in it, and the protocol by which files appear.

A file is written under a temporary name, flushed, and published: renamed in a folder, uploaded to
an object store. So a file that has its final name is whole. A part counts only when its receipt (a
JSON file with its SHA-256) exists too. Readers take the list of files from `run.json`, never from
a listing of the directory.

    DIR/.work/lock            held by the process that writes (`writers/` in an object store)
    DIR/.work/kind            records that this is a scoring run
    DIR/.work/plan/           plan.json, written last, the files whose digests it holds, and key
    DIR/.work/receipts/KEY/   part-00012.json: one for each committed part; KEY identifies the run
    DIR/.work/tops/KEY/       part-00012: the strongest effects of each target in that part
    DIR/.work/summaries/KEY/  part-00012: what ranking needs to know of each of its alleles
    DIR/.work/tmp/            files being written; removed when a run starts
    DIR/scores/...            see the README
    DIR/progress.json         progress of the run
    DIR/failed.json           the shards that were given up, if there are any
    DIR/run.json, _SUCCESS    written last; then .work is removed

In an object store the name of a part contains twelve digits of its SHA-256. So no name ever has two
contents, and a part that a lost worker uploads late never replaces a part of the run.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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


class RunDir:
    """The files of a run: their names, and how they are written.

    Args:
        place: a folder, or a URL in an object store.
        key: identifies the run among earlier and later runs at this place. It is part of the names
            of working files, so that a lost worker of another run cannot add files to this one.

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
        """Publish the tops or summaries of `shard`; return the file's {path, bytes, sha256}."""
        name = f"{self._working(kind)}/part-{shard:05d}"
        return {"path": name, **self.store.publish(temporary, name)}

    def publish_receipt(self, receipt: dict[str, Any]) -> None:
        """Commit a shard: from now on its parts count."""
        name = f"{self._working('receipts')}/part-{receipt['shard']:05d}.json"
        self.store.publish_json(receipt, name)

    def _working(self, kind: str) -> str:
        return f"{_WORK}/{kind}/{self.key}"

    def require_current(self) -> None:
        """Check, before a part is published, that no other run has replaced this one.

        Raises:
            OutputError: another run is at this place, or none.
        """
        try:
            current = self.store.read(_KEY).decode()
        except FileNotFoundError:
            current = ""
        if current != self.key:
            raise OutputError(
                f"{self.place} was taken over by another raygenome while this one was running"
            )

    def committed(self) -> dict[int, dict[str, Any]]:
        """Return the receipts of the shards whose files are all whole, see `Store.is_whole`."""
        names = sorted(self.store.sizes(self._working("receipts")))
        if not names:
            return {}
        sizes = self.store.sizes()
        # An object store answers slowly, but many requests at a time.
        with ThreadPoolExecutor(os.cpu_count() if self.store.renames else 32) as threads:
            found = threads.map(lambda name: self._whole_receipt(name, sizes), names)
            return {receipt["shard"]: receipt for receipt in found if receipt is not None}

    def _whole_receipt(self, name: str, sizes: dict[str, int]) -> dict[str, Any] | None:
        """Return a receipt if its files are all whole, None if not."""
        try:
            receipt: dict[str, Any] = json.loads(self.store.read(name))
        except ValueError:
            return None  # a damaged receipt does not count: the shard is scored again
        whole = all(self.store.is_whole(file, sizes) for file in receipt["files"])
        return receipt if whole else None

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self.store.exists(_PLAN_JSON)

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.store.exists(SUCCESS)

    @property
    def draft(self) -> Path:
        """The local folder in which a plan is made."""
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
        """Leave the place as it was found, when planning failed before any commit."""
        with suppress(OSError, StorageError):  # the first error is the one to report
            shutil.rmtree(self.draft, ignore_errors=True)
            if self.planned or self.store.exists(RUN_JSON):
                return  # an earlier run, which --overwrite has not replaced yet
            self.store.remove(self.store.working, PROGRESS)
            self.store.remove_if_created()

    def clear(self) -> None:
        """Remove an earlier run, its mark of completeness first; the draft of a plan stays."""
        self.store.remove(SUCCESS, RUN_JSON, _PLAN_JSON, FAILED, SKIPPED, TARGETS)
        self.store.remove("scores", "log_odds", "ranked", PLAN)
        self.store.remove(*(f"{_WORK}/{kind}" for kind in ("receipts", "tops", "summaries")))

    def finish(self, listed: set[str]) -> None:
        """Remove what only an unfinished run needs, and parts that run.json does not list."""
        try:
            self.store.remove(FAILED)
            if not self.store.renames:
                parts = [*self.store.sizes("scores"), *self.store.sizes("log_odds")]
                self.store.remove(*(name for name in parts if name not in listed))
            self.store.remove_working()
        except (OSError, StorageError) as error:  # the run is finished nevertheless
            log.warning(
                "%s: working files could not be removed (%s); --resume removes them",
                self.place,
                error,
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run as its only writer; see `Store.lock`."""
        with self.store.lock(self.KIND):
            yield


def claim(place: str | Path, *, resume: bool, overwrite: bool) -> RunDir:
    """Return the run at `place` if it may be written to; see `Store.claim`."""
    run = RunDir(place)
    run.store.claim(run.KIND, resume=resume, overwrite=overwrite)
    return run


def read_run(run: Store | str | Path) -> dict[str, Any]:
    """Return the run.json of a finished run, given by its store or its place.

    Raises:
        DataError: it is damaged, or has a format that this version does not know.
    """
    store = run if isinstance(run, Store) else open_store(run)
    path = store.shown(RUN_JSON)
    try:
        document = json.loads(store.read(RUN_JSON))
    except (FileNotFoundError, ValueError):
        document = None
    if not isinstance(document, dict):
        raise DataError(f"{path} is damaged", "score again with --overwrite")
    if (found := document.get("format")) != FORMAT:
        raise DataError(f"{path} has format {found!r}, but this raygenome reads {FORMAT}")
    for key in ("config", "counts", "parts", "files"):
        if key not in document:
            raise DataError(f"{path} is damaged: it has no {key!r}", "score again with --overwrite")
    return document
