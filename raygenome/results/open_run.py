"""Opening a finished run to read it."""

from pathlib import Path
from typing import Any

from raygenome.errors import DataError, NoInput
from raygenome.results.run_dir import RUN_JSON, SUCCESS, RunDir, read_run
from raygenome.storage.object_store import ObjectStore
from raygenome.storage.store import LocalStore, Store


def require_finished(place: Path | str) -> Store:
    """Return the store of the finished run at `place`, a folder or a URL.

    Raises:
        NoInput: there is no run.
        DataError: it is unfinished.
    """
    run = RunDir(place)
    store = run.store
    if isinstance(store, LocalStore) and not store.path.is_dir():
        raise NoInput(f"{place}: no such run directory")
    names = store.listdir()
    if isinstance(store, ObjectStore) and not names and not store.bucket.has_bucket():
        raise NoInput(f"{store.place}: there is no such bucket")
    if not names >= {SUCCESS, RUN_JSON}:
        started = names & {SUCCESS, RUN_JSON, store.working}
        if started and store.kind() in (run.KIND.name, None):
            raise DataError(
                f"{place} holds an unfinished run", "finish it: raygenome score ... --resume"
            )
        raise NoInput(f"{place} holds no run of `raygenome score` (it has no {SUCCESS})")
    return store


def read_finished(place: Path | str) -> dict[str, Any]:
    """Return the run.json of the finished run at `place`.

    Raises:
        NoInput: there is no run.
        DataError: it is unfinished or damaged, or has an unknown format.
    """
    return read_run(require_finished(place))
