"""Runs `raygenome` with a checkpoint every few steps, and kills workers where a test asks for it.

    python -m training_launcher train CONFIG --data DIR --out FOLDER/run --workers N ...

FOLDER/look-every holds the number of steps after which a worker checks the loss and saves. An empty
file FOLDER/kill-RANK-STEP makes the worker of that rank kill itself once with SIGKILL after that
step. FOLDER/hold-RANK-STEP makes it wait while the file exists. With `--workers 0` the driver is
worker 0. FOLDER/pid-RANK holds the pid of a worker, and FOLDER/steps-RANK the steps that it has
started, one per line.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from raygenome.training import loop

#: Of `loop.Task`, with 0 for its last, `checkpoint_s`: a worker saves at each look.
SAVING = (*loop.Task.__init__.__defaults__[:-1], 0.0)  # type: ignore[attr-defined]


def prepare(folder: Path) -> None:
    """Set up this process as the module describes."""
    step, init = loop.Worker._step, loop.Worker.__init__

    def dying(worker: loop.Worker, batch: Any) -> Any:
        with (folder / f"steps-{worker.rank}").open("a") as out:
            out.write(f"{worker.state.step}\n")
        found = step(worker, batch)
        name = f"{worker.rank}-{worker.state.step}"
        with contextlib.suppress(FileNotFoundError):
            (folder / f"kill-{name}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while (folder / f"hold-{name}").exists():
            time.sleep(0.01)
        return found

    def begun(worker: loop.Worker, task: loop.Task, **options: Any) -> None:
        (folder / f"pid-{options.get('rank', 0)}").write_text(str(os.getpid()))
        init(worker, task, **options)

    loop.LOOK_EVERY = int((folder / "look-every").read_text())
    loop.Worker._step = dying  # type: ignore[method-assign]
    loop.Worker.__init__ = begun  # type: ignore[method-assign, assignment]


def on_ray(config: dict[str, Any]) -> None:
    """Run a worker of Ray Train; this replaces `workers._work`."""
    from raygenome.training import workers

    prepare(Path(config["task"].out).parent)
    workers._work(config)


def main() -> None:
    """Run the command line."""
    import torch

    import raygenome.cli

    words = sys.argv[1:]
    torch.set_num_threads(1)
    loop.Task.__init__.__defaults__ = SAVING  # type: ignore[attr-defined]
    if words[words.index("--workers") + 1] == "0":
        prepare(Path(words[words.index("--out") + 1]).parent)
    else:
        from raygenome.training import workers

        workers._work = on_ray
    raygenome.cli.main()


if __name__ == "__main__":
    main()
