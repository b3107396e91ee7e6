"""The files of a training run, in a folder or in an object store.

RUN/model/              the best model so far, a model directory
RUN/log.jsonl           one line per epoch
RUN/curves.png          the log as a picture
RUN/progress.json       progress of the run, also after its end
RUN/run.json            written last: the run is finished
RUN/.work/lock          held by the process that trains
RUN/.work/kind          records that this is a training run
RUN/.work/identity.json config and data of the run, which must be the same for --resume
RUN/.work/checkpoints/  checkpoint-000001200.pt: the state after 1,200 steps
RUN/.work/tmp/          files being written; removed when a run starts
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from raygenome.errors import StorageError
from raygenome.registry.modeldir import SPEC_FILE
from raygenome.storage.object_store import open_store
from raygenome.storage.store import Kind, Store

MODEL = "model"
LOG = "log.jsonl"
CURVES = "curves.png"
RUN_JSON = "run.json"
PROGRESS = "progress.json"
IDENTITY = ".work/identity.json"
CHECKPOINTS = ".work/checkpoints"
#: Ray Train's own files.
RAY = ".work/ray"

TRAINING_RUN = Kind("training run", finished=RUN_JSON, started=IDENTITY, replace="--fresh")


def read_json(store: Store, name: str) -> Any:
    """Return the value in a JSON file of a run, None if there is no such file.

    Raises:
        DataError: it is damaged.
    """
    return store.read_json(name, do="start again with --fresh")


def claim(place: str | Path, *, resume: bool, fresh: bool) -> Store:
    """Return the store of a run at `place`, after checking that it may be written to.

    Raises:
        OutputError: a training run is there and neither `resume` nor `fresh` was given; or
            something else is there; or the place cannot be written to.
    """
    store = open_store(place)
    store.claim(TRAINING_RUN, resume=resume, overwrite=fresh)
    return store


def clear(store: Store) -> None:
    """Remove an earlier run, first the file that marks it as finished; other files stay."""
    store.remove(RUN_JSON, IDENTITY, LOG, CURVES, PROGRESS)
    if store.exists(f"{MODEL}/{SPEC_FILE}"):
        store.remove(MODEL)
    store.remove(CHECKPOINTS)


def tidy(store: Store) -> None:
    """Remove the files that only an unfinished run needs; `.work/kind` stays, see `Store.claim`."""
    with contextlib.suppress(OSError, StorageError):  # the run is finished even if this fails
        store.remove(CHECKPOINTS, RAY, ".work/tmp")


def publish_log(store: Store, log: list[dict[str, Any]]) -> None:
    """Write log.jsonl and curves.png from all epochs so far, as the checkpoints hold them."""
    from raygenome.training.curves import draw

    store.publish_text("".join(json.dumps(line) + "\n" for line in log), LOG)
    picture = store.temporary_file(CURVES)
    draw(log, picture)
    store.publish(picture, CURVES)
