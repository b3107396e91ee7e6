"""Training on Ray Train workers: one process a GPU, or a core; the only file that knows Ray Train.

A worker that dies takes its group with it, since a step needs them all; Ray Train starts a new
group, of the size that there is room for, and it goes on from the newest checkpoint. Checkpoints
are our own (see `checkpoint`), so that a run with workers and one without go on from each other's.
"""

import contextlib
import logging
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from raygenome.cluster.connect import connected
from raygenome.cluster.hardware import cores
from raygenome.cluster.health import ClusterHealth
from raygenome.cluster.signals import HeldSigterm, Stopped
from raygenome.errors import (
    DataError,
    NoInput,
    OutputError,
    PartialFailure,
    RaygenomeError,
    StorageError,
    UsageError,
)
from raygenome.pool.actor import DEATHS, death_cause
from raygenome.progress.bars import Progress
from raygenome.training.loop import Task, Worker
from raygenome.training.run_dir import TrainDir, publish_log

log = logging.getLogger(__name__)

#: Deaths of workers that a run survives; Ray Train does not tell one that recurs at the same step.
MOST_FAILURES = 20
#: Seconds between two notes of how far the workers are, and between two looks at them.
_NOTE_S, _POLL_S = 1.0, 0.2
#: How often Ray looks whether more workers could take part.
_RESIZE_S = 60.0


def train_on_ray(
    task: Task,
    run: TrainDir,
    *,
    workers: tuple[int, int],
    progress: Progress,
) -> None:
    """Train with `workers` (least, most) processes, until the run is finished.

    Raises:
        RaygenomeError: what a worker found wrong with the data, the recipe or the disk.
        PartialFailure: workers died too often, or the cluster was lost; what is committed stays.
    """
    least, most = workers
    run.progress.unlink(missing_ok=True)
    run.failure.unlink(missing_ok=True)
    attempt = uuid.uuid4().hex
    with (
        connected(workers=most, device=task.device) as private,
        ClusterHealth(private=private) as health,
    ):
        _check_room(least, task.device, private=private)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task, "attempt": attempt},
            scaling_config=_scaling(least, most, gpu=task.device == "cuda"),
            torch_config=TorchConfig(backend="nccl" if task.device == "cuda" else "gloo"),
            run_config=RunConfig(
                # Ray Train would go on with a run of the same name by rules of its own.
                name=attempt,
                storage_path=str(run.work.absolute() / "ray"),
                failure_config=FailureConfig(max_failures=MOST_FAILURES),
                logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
            ),
        )
        _fit(trainer, run, attempt, progress, health)


def _check_room(least: int, device: str, *, private: bool) -> None:
    """Say that Ray has not got what the workers need; it would wait, without a word, for ever.

    Raises:
        UsageError: Ray is private, so that it cannot grow.
    """
    kind = "GPU" if device == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if least <= there:
        return
    said = f"{least} workers need a {kind} each, and Ray has {there}"
    if private:
        raise UsageError(f"{said}; ask for fewer with --workers")
    log.warning("%s; waiting for the cluster to grow (--workers asks for fewer)", said)


def _scaling(least: int, most: int, *, gpu: bool) -> ScalingConfig:
    """Return what Ray Train is to start: a number of workers, or as many as there is room for."""
    said: dict[str, Any] = {"num_workers": most, "use_gpu": gpu}
    if least != most:
        said |= {"num_workers": (least, most), "elastic_resize_monitor_interval_s": _RESIZE_S}
    if not gpu:
        said["resources_per_worker"] = {"CPU": 1}
    return ScalingConfig(**said)


def _fit(
    trainer: TorchTrainer, run: TrainDir, attempt: str, progress: Progress, health: ClusterHealth
) -> None:
    """Run the trainer in a thread, so that this one can be stopped and tell how far it is."""
    outcome: list[BaseException | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            outcome.append(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    shown = False
    with HeldSigterm() as held:
        thread.start()
        try:
            while not outcome:
                thread.join(_POLL_S)
                held.check()
                shown = _show(run, progress, shown=shown)
                _raise_failure(run, attempt)
                health.check()
            shown = _show(run, progress, shown=shown)  # what was noted since
        except Stopped:
            return  # the block's end delivers the signal
        finally:
            if shown:
                progress.end()
        _raise_failure(run, attempt)
    if outcome[0] is not None:
        raise _in_words(outcome[0], health)


def _in_words(error: BaseException, health: ClusterHealth) -> BaseException:
    """Return what to raise for an error of Ray Train's: one line, where something was lost."""
    if isinstance(error, ray.train.TrainingFailedError):
        cause = next(iter(str(error).strip().splitlines()[-1:]), "unknown")
        said = f"training stopped, its workers failed more than {MOST_FAILURES} times: {cause}"
    elif isinstance(error, RayError) and not health.answers_now():
        said = "training stopped, the head of the Ray cluster does not answer any more"
    elif isinstance(error, DEATHS):  # of the actor that leads the workers
        said = f"training stopped, what leads the workers was lost: {death_cause(error)}"
    else:
        return error
    line = f"{said}; what is committed stays: mend the cause and run again with --resume"
    failure = PartialFailure(line)
    failure.__cause__ = error
    return failure


def _raise_failure(run: TrainDir, attempt: str) -> None:
    """Raise what a worker has found that no other try would mend.

    What the last worker of a killed driver may still write is of another attempt.
    """
    failure = run.read(run.failure)
    if failure is not None and failure["attempt"] == attempt:
        kind = {error.__name__: error for error in (DataError, NoInput, OutputError, UsageError)}
        raise kind.get(failure["kind"], StorageError)(failure["message"])


def _show(run: TrainDir, progress: Progress, *, shown: bool) -> bool:
    """Pass on what the workers noted last; return whether they have noted anything yet."""
    noted = run.read(run.progress)
    if noted is None:
        return shown
    if not shown:
        progress.begin("training", noted["total"], noted["first"], unit="samples")
    progress.update(noted["done"], noted["note"])
    return True


def _work(config: dict[str, Any]) -> None:
    """Be one of the workers."""
    import torch

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    task: Task = config["task"]
    if task.device == "cpu":
        share = cores() // max(context.get_local_world_size(), 1)
        torch.set_num_threads(task.threads or max(1, share))
    else:
        torch.cuda.set_device(ray.train.torch.get_device())
    run = TrainDir(Path(task.out))
    failure = run.read(run.failure)
    if failure is not None and failure["attempt"] == config["attempt"]:
        return  # a second try, before the driver has seen how the first one ended
    try:
        worker = Worker(
            task, rank=rank, world=world, after_epoch=lambda line: _report(worker, line)
        )
        worker.tell = _Notes(worker)
        worker.run()
    except (RaygenomeError, OSError) as error:
        # The driver reads this and stops all workers; the others may be waiting for this one.
        with contextlib.suppress(OSError):
            said = {"kind": type(error).__name__, "message": str(error)}
            said["attempt"] = config["attempt"]
            run.publish_json(said, run.failure)
        raise


def _report(worker: Worker, line: dict[str, Any]) -> None:
    """Write the log and tell Ray Train, which waits here for all workers."""
    if worker.rank == 0:
        publish_log(worker.run_dir, worker.state.log)
    ray.train.report({key: value for key, value in line.items() if value is not None})


class _Notes:
    """Writes down how far the first worker is, for the driver to show."""

    def __init__(self, worker: Worker) -> None:
        self._run, self._rank = worker.run_dir, worker.rank
        self._total = worker.recipe.epochs * worker.steps * worker.recipe.batch_size
        self._first = worker.state.step * worker.recipe.batch_size
        self._noted = 0.0

    def __call__(self, done: int, note: str) -> None:
        early = time.monotonic() - self._noted < _NOTE_S and done < self._total
        if self._rank > 0 or early:
            return
        self._noted = time.monotonic()
        said = {"done": done, "note": note, "total": self._total, "first": self._first}
        self._run.note_json(said, self._run.progress)
