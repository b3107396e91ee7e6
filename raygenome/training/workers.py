"""Training on Ray Train workers, one process per GPU or core; the only module that uses Ray Train.

A step needs all workers, so a worker that dies ends its group. Ray Train then starts a new group,
as large as there is room for, which continues from the newest checkpoint. Checkpoints are our own
(see `checkpoint`), so a run can continue with any number of workers, or without Ray.
"""

import contextlib
import logging
import threading
import time
import uuid
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygenome.cluster.connect import connected
from raygenome.cluster.hardware import cores
from raygenome.cluster.health import ClusterHealth
from raygenome.cluster.signals import HeldSigterm, Stopped
from raygenome.errors import PartialFailure, RaygenomeError, StorageError, UsageError
from raygenome.pool.actor import DEATHS, death_cause
from raygenome.progress.bars import Progress
from raygenome.storage.object_store import ObjectStore
from raygenome.storage.store import Store
from raygenome.training.loop import Task, Worker
from raygenome.training.reports import Position, Reports
from raygenome.training.run_dir import RAY, publish_log

log = logging.getLogger(__name__)

#: Deaths of workers that a run survives; Ray Train does not notice one that recurs at each try.
MOST_FAILURES = 20
#: Seconds between two reports of a worker, and between two checks of the driver.
_REPORT_S, _POLL_S = 1.0, 0.2
#: Seconds that the driver waits for the last report.
_LAST_REPORT_S = 5.0
#: How often Ray checks whether more workers could take part.
_RESIZE_S = 60.0


def train_on_ray(
    task: Task,
    store: Store,
    *,
    workers: tuple[int, int],
    progress: Progress,
) -> None:
    """Train with `workers` (least, most) processes, until the run is finished.

    Raises:
        RaygenomeError: a worker found an error in the data, the config or the disk.
        PartialFailure: workers died too often, or the cluster was lost; checkpoints stay.
    """
    least, most = workers
    with (
        connected(workers=most, device=task.device) as private,
        ClusterHealth(private=private) as health,
    ):
        _check_room(least, task.device, private=private)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        reports = ray.remote(Reports).options(num_cpus=0, scheduling_strategy=here).remote()
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task, "reports": reports},
            scaling_config=_scaling(least, most, gpu=task.device == "cuda"),
            torch_config=TorchConfig(backend="nccl" if task.device == "cuda" else "gloo"),
            run_config=RunConfig(
                # Ray Train would continue a run of the same name by its own rules.
                name=uuid.uuid4().hex,
                failure_config=FailureConfig(max_failures=MOST_FAILURES),
                logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
                **_ray_storage(store),
            ),
        )
        _fit(trainer, _Desk(reports, progress), health)


def _ray_storage(store: Store) -> dict[str, Any]:
    """Return the place of Ray Train's own files, next to the run's working files."""
    if isinstance(store, ObjectStore):
        bucket = store.bucket
        return {"storage_path": bucket.path(RAY), "storage_filesystem": bucket.filesystem}
    return {"storage_path": f"{store.absolute}/{RAY}"}


def _check_room(least: int, device: str, *, private: bool) -> None:
    """Report that Ray lacks what the workers need; Ray itself would wait silently.

    Raises:
        UsageError: it is a private Ray, which does not grow.
    """
    kind = "GPU" if device == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if least <= there:
        return
    found = f"{least} workers need one {kind} each, and Ray has {there}"
    if private:
        raise UsageError(found, "ask for fewer with --workers")
    log.warning("%s; waiting for the cluster to grow (--workers asks for fewer)", found)


def _scaling(least: int, most: int, *, gpu: bool) -> ScalingConfig:
    """Return how many workers Ray Train starts: a fixed number, or as many as there is room for."""
    options: dict[str, Any] = {"num_workers": most, "use_gpu": gpu}
    if least != most:
        options |= {"num_workers": (least, most), "elastic_resize_monitor_interval_s": _RESIZE_S}
    if not gpu:
        options["resources_per_worker"] = {"CPU": 1}
    return ScalingConfig(**options)


def _fit(trainer: TorchTrainer, desk: "_Desk", health: ClusterHealth) -> None:
    """Run the trainer in a thread, so that this thread can show progress and be stopped."""
    outcome: list[BaseException | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            outcome.append(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    with HeldSigterm() as held, desk:
        thread.start()
        try:
            while not outcome:
                thread.join(_POLL_S)
                held.check()
                desk.look()
                health.check()
            desk.look(wait_s=_LAST_REPORT_S)
        except Stopped:
            return  # the end of the block delivers the signal
    if outcome[0] is not None:
        raise _in_words(outcome[0], health)


class _Desk:
    """The driver's end of `Reports`: shows progress, and raises the error of a worker."""

    def __init__(self, reports: Any, progress: Progress) -> None:
        self._reports, self._progress = reports, progress
        self._asked: Any = None
        self._shown = False

    def __enter__(self) -> "_Desk":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._progress.end()

    def look(self, wait_s: float = 0.0) -> None:
        """Show the newest report; waits at most `wait_s`, since a lost cluster never answers.

        Raises:
            RaygenomeError: the error that a worker reported.
        """
        with contextlib.suppress(RayError):  # `ClusterHealth` and Ray Train report the loss
            if wait_s or self._asked is None:
                self._asked = self._reports.newest.remote()
            if not ray.wait([self._asked], timeout=wait_s)[0]:
                return
            (position, error), self._asked = ray.get(self._asked), None
            self.show(position, error)

    def show(self, position: Position | None, error: RaygenomeError | None) -> None:
        """Show a position, then raise an error."""
        if position is not None:
            if not self._shown:
                self._progress.begin("training", position.total, position.first, unit="samples")
                self._shown = True
            self._progress.update(position.done, position.note)
        if error is not None:
            raise error


def _in_words(error: BaseException, health: ClusterHealth) -> BaseException:
    """Return the exception to raise for an error of Ray Train: one line if something was lost."""
    if isinstance(error, ray.train.TrainingFailedError):
        cause = next(iter(str(error).strip().splitlines()[-1:]), "unknown")
        found = f"training stopped: its workers failed more than {MOST_FAILURES} times: {cause}"
    elif isinstance(error, RayError) and not health.answers_now():
        found = "training stopped: the head of the Ray cluster does not answer any more"
    elif isinstance(error, DEATHS):  # of Ray Train's controller
        found = f"training stopped: the controller of the workers was lost: {death_cause(error)}"
    else:
        return error
    failure = PartialFailure(
        f"{found}; checkpoints are kept", "fix the cause and run again with --resume"
    )
    failure.__cause__ = error
    return failure


def _work(config: dict[str, Any]) -> None:
    """Run one worker; Ray Train calls this in each worker process."""
    import torch

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    task: Task = config["task"]
    reports = config["reports"]
    if task.device == "cpu":
        share = cores() // max(context.get_local_world_size(), 1)
        torch.set_num_threads(task.threads or max(1, share))
    else:
        torch.cuda.set_device(ray.train.torch.get_device())
    if ray.get(reports.failed.remote()):
        return  # this is a second attempt, started before the driver saw the first one's error
    try:
        worker = Worker(
            task,
            rank=rank,
            world=world,
            on_progress=_Throttled(reports, rank),
            after_epoch=lambda line: _after_epoch(worker, line),
        )
        try:
            worker.run()
        finally:
            worker.close()
    except (RaygenomeError, OSError) as error:
        # The driver sees this and stops all workers; the others may be waiting for this one.
        ray.get(reports.fail.remote(_for_the_user(error)))
        raise


def _for_the_user(error: RaygenomeError | OSError) -> RaygenomeError:
    if isinstance(error, RaygenomeError):
        return error
    return StorageError(str(error), "fix the cause and run again with --resume")


def _after_epoch(worker: Worker, line: dict[str, Any]) -> None:
    """Write the log, and report to Ray Train, which waits here for all workers."""
    if worker.rank == 0:
        publish_log(worker.store, worker.state.log)
    ray.train.report({key: value for key, value in line.items() if value is not None})


class _Throttled:
    """Reports the progress of rank 0, at most once per `_REPORT_S` but always the end."""

    def __init__(self, reports: Any, rank: int) -> None:
        self._reports, self._rank = reports, rank
        self._reported = 0.0

    def __call__(self, position: Position) -> None:
        early = time.monotonic() - self._reported < _REPORT_S and position.done < position.total
        if self._rank > 0 or early:
            return
        self._reported = time.monotonic()
        ray.get(self._reports.progress.remote(position))
