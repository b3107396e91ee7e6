"""A finished run, for those who read it: whether there is one, and what its run.json says."""

from pathlib import Path
from typing import Any

from raygenome.errors import DataError, NoInput
from raygenome.results.rundir import RunDir, read_run


def require_finished(path: Path) -> RunDir:
    """Return the names of the finished run at `path`.

    Raises:
        NoInput: there is no run.
        DataError: it is unfinished.
    """
    run = RunDir(path)
    if not path.is_dir():
        raise NoInput(f"{path}: no such run directory")
    if not run.success.exists() or not run.run_json.exists():
        begun = run.run_json.exists() or run.success.exists() or run.work.exists()
        if begun and run.kind_begun() in (run.KIND, None):
            raise DataError(
                f"{path} holds an unfinished run; finish it: raygenome score ... --resume"
            )
        raise NoInput(f"{path} holds no run of `raygenome score` (it has no _SUCCESS)")
    return run


def read_finished(path: Path) -> dict[str, Any]:
    """Return the run.json of the finished run at `path`.

    Raises:
        NoInput: there is no run.
        DataError: it is unfinished, damaged, or of an unknown format.
    """
    require_finished(path)
    return read_run(path)
