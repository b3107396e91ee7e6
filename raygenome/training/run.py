"""Training a model from start to end: check, train, keep the best, record the result.

    config + dataset ──► Worker (in this process, or one per GPU on Ray Train) ──► RUN/model

Checkpoints are committed by a rename or an upload. A killed run continues from the newest one with
the steps that it would have taken. On a CPU the weights are the same bit for bit, for the same
number of workers and threads.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raygenome
from raygenome.cluster.compute import Compute
from raygenome.cluster.resources import Machines, joined_machines
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, StorageError, UsageError
from raygenome.models import build
from raygenome.progress.bars import BothProgress, NoProgress, Progress
from raygenome.progress.file import ProgressFile
from raygenome.storage.bucket import is_remote, require_local
from raygenome.storage.object_store import open_store
from raygenome.storage.store import Store
from raygenome.training import run_dir
from raygenome.training.config import TrainConfig, load_config, make_config
from raygenome.training.order import MAX_MICROBATCHES, steps_in_epoch

if TYPE_CHECKING:
    from raygenome.training.loop import Task

#: Version of run.json.
FORMAT = 1


@dataclass(frozen=True)
class TrainingRun:
    """A finished training run.

    Attributes:
        path: its folder, or its URL in an object store.
        document: the content of run.json: steps, epochs, samples, seconds, config, data_digest,
            best.
        log: one dict per epoch, as in log.jsonl.
    """

    path: Path | str
    document: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def model(self) -> Path | str:
        """The model directory of the best epoch."""
        if isinstance(self.path, Path):
            return self.path / run_dir.MODEL
        return f"{self.path}/{run_dir.MODEL}"


def train(
    config: str | Path | dict[str, Any] | TrainConfig,
    *,
    data: str | Path,
    out: str | Path,
    workers: int | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    fresh: bool = False,
    address: str | None = None,
    insecure: bool = False,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train a model on a packed dataset and leave a run directory.

    Args:
        config: a configuration, its plain values, or a YAML file that holds them.
        data: folder of the dataset, or its URL in an object store.
        out: folder to write the run to, or a URL in an object store.
        workers: processes that share each batch: a number; "MIN-MAX" for as many as there is room
            for at any time; 0 for this process without Ray; None or "auto" for one per GPU, or this
            process if there are fewer than two.
        device: auto, cpu or cuda.
        threads: threads of torch in each process that trains on a CPU. None gives each worker its
            share of the machine's cores, and changes nothing in this process. The weights are the
            same bit for bit for the same workers and threads.
        resume: continue an unfinished run in `out`.
        fresh: first remove the run in `out`.
        address: a Ray cluster to use. None takes the one of RAY_ADDRESS, as within a Ray job, or
            starts a private one if workers are needed.
        insecure: use a cluster even if no token protects it.
        progress: shows the progress of training.

    Raises:
        RaygenomeError: an error that the user can fix; `exit_code` is that of the command line.
    """
    if resume and fresh:
        raise UsageError("--resume and --fresh contradict each other", "give one of them")
    compute = Compute(
        workers=workers,
        device=device,  # type: ignore[arg-type]  # checked by Compute
        address=address,
        insecure=insecure,
        threads=threads,
    )
    config = _config(config)
    dataset = Dataset.open(data)
    dataset.verify()
    check_fit(config, dataset)
    with joined_machines(address, insecure=insecure, in_process=compute.in_process) as machines:
        compute = compute.resolved(config.precision, gpus=machines.gpus, cluster=machines.cluster)
        n_workers = wanted_workers(compute, config, machines)
        store = run_dir.claim(out, resume=resume, fresh=fresh)
        try:
            with store.lock(run_dir.TRAINING_RUN):
                return _train(
                    store, config, dataset, compute, n_workers, progress or NoProgress(), fresh
                )
        except OSError as error:
            raise StorageError(str(error), "fix the cause and run again with --resume") from error
        finally:
            store.close()


def wanted_workers(compute: Compute, config: TrainConfig, machines: Machines) -> tuple[int, int]:
    """Return the least and the most workers to start; (0, 0) trains in this process.

    Raises:
        UsageError: it is not a number of workers, or more than can share a batch.
    """
    workers = compute.workers
    if workers is None or workers == "auto":
        count = machines.gpus if compute.device == "cuda" else 0
        fewest = 1 if machines.cluster else 2  # a cluster's GPU is not this process's
        return (count, count) if count >= fewest else (0, 0)
    least, dash, most = str(workers).partition("-")
    try:
        wanted = int(least), int(most if dash else least)
    except ValueError:
        wanted = -1, -1
    if isinstance(workers, bool | float) or wanted[0] < bool(dash) or wanted[1] < wanted[0]:
        raise UsageError(
            f"--workers is {workers}; it must be auto, 0 (no Ray), a larger number, or MIN-MAX"
        )
    limit = min(config.batch_size, MAX_MICROBATCHES)
    if wanted[1] > limit:
        raise UsageError(
            f"--workers is {workers}; at most {limit} workers can share a batch of "
            f"{config.batch_size}"
        )
    return wanted


def _train(
    store: Store,
    config: TrainConfig,
    dataset: Dataset,
    compute: Compute,
    n_workers: tuple[int, int],
    progress: Progress,
    fresh: bool,
) -> TrainingRun:
    from raygenome.training.loop import Task

    if fresh:
        run_dir.clear(store)
    identity = {"config": config.plain(), "data_digest": dataset.digest}
    _require_same(store, identity)
    if store.exists(run_dir.RUN_JSON):
        run_dir.tidy(store)  # the process may have been killed before it did this
        return read_training(store.source)
    store.publish_json(identity, run_dir.IDENTITY)
    data = open_store(dataset.place).absolute
    task = Task(config, data, store.absolute, compute.device, compute.threads)
    file = ProgressFile("train", lambda text: store.note(text, run_dir.PROGRESS))
    both = BothProgress(progress, file)
    with file.record_end(keep=lambda: True):
        if n_workers == (0, 0):
            _train_here(task, both)
        else:
            from raygenome.training.workers import train_on_ray

            train_on_ray(task, store, workers=n_workers, progress=both)
        finished = _finish(store, identity)
        file.state("done")
    run_dir.tidy(store)
    return finished


def _train_here(task: "Task", progress: Progress) -> None:
    """Train in this process."""
    from raygenome.training.loop import Worker

    worker = Worker(
        task,
        on_progress=lambda position: progress.update(position.done, position.note),
        after_epoch=lambda _line: run_dir.publish_log(worker.store, worker.state.log),
    )
    position = worker.position()
    progress.begin("training", position.total, position.done, unit="samples")
    try:
        with _threads(task):
            worker.run()
    finally:
        progress.end()
        worker.close()


@contextmanager
def _threads(task: "Task") -> Iterator[None]:
    """Set torch's number of threads within the block; the caller's number is restored."""
    import torch

    before = torch.get_num_threads()
    if task.device == "cpu" and task.threads is not None:
        torch.set_num_threads(task.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(store: Store, identity: dict[str, Any]) -> TrainingRun:
    """Write the final log and run.json."""
    from raygenome.training.checkpoint import identity_of, load_checkpoint

    found = load_checkpoint(store, identity_of(**identity))
    if found is None:
        raise DataError(
            f"{store.shown(run_dir.CHECKPOINTS)} holds no checkpoint", "start again with --fresh"
        )
    log = found["state"]["log"]
    run_dir.publish_log(store, log)
    best = next(line for line in reversed(log) if line["best"])
    document = {
        "format": FORMAT,
        "version": raygenome.__version__,
        "steps": log[-1]["step"],
        "epochs": log[-1]["epoch"],
        "samples": log[-1]["samples"],
        "seconds": log[-1]["seconds"],
        "best": {key: best[key] for key in best if key == "epoch" or key.startswith("valid_")},
        **identity,
    }
    store.publish_json(document, run_dir.RUN_JSON)
    return _as_run(store, document, log)


def read_training(place: str | Path) -> TrainingRun:
    """Return a finished training run.

    Raises:
        DataError: it is not finished, or damaged.
    """
    store = open_store(place)
    document = run_dir.read_json(store, run_dir.RUN_JSON)
    if document is None or not store.exists(run_dir.LOG):
        raise DataError(
            f"{store.place} holds no finished training run", "continue it with --resume"
        )
    lines = store.read(run_dir.LOG).decode().splitlines()
    return _as_run(store, document, [json.loads(line) for line in lines])


def _as_run(store: Store, document: dict[str, Any], log: list[dict[str, Any]]) -> TrainingRun:
    path = store.source if is_remote(store.source) else Path(store.source)
    return TrainingRun(path, document, log)


def check_fit(config: TrainConfig, dataset: Dataset) -> None:
    """Refuse a configuration that does not fit the dataset.

    Raises:
        DataError: no training windows, windows of another length, too few positives or samples.
        UsageError: there is no such net.
    """
    split = dataset.split("train")
    if split.n_rows == 0:
        raise DataError(f"{dataset.place} has no training windows", "build it with other splits")
    for key, there in (("window", dataset.window_size), ("targets", len(dataset.targets))):
        if config.net.get(key, there) != there:
            raise DataError(
                f"the config has net.{key} {config.net[key]}, {dataset.place} has {there}",
                f"remove net.{key} from the config, or use other data",
            )
    few = [i for i, n in enumerate(split.positives().tolist()) if n < config.min_positives]
    if few:
        first = dataset.targets[few[0]]
        raise DataError(
            f"{len(few)} of {len(dataset.targets)} targets have fewer than {config.min_positives} "
            f"positive training windows; the first is {first.name} with "
            f"{split.positives()[few[0]]}",
            "leave them out of the data, or lower min_positives",
        )
    steps = steps_in_epoch(
        split.n_rows, config.batch_size, strands=config.strands, limit=config.epoch_samples
    )
    if steps == 0:
        raise DataError(
            f"an epoch has fewer samples than a batch of {config.batch_size}", "lower batch_size"
        )
    _check_net(config, dataset)


def _check_net(config: TrainConfig, dataset: Dataset) -> None:
    import torch

    net_config = {**config.net, "window": dataset.window_size, "targets": len(dataset.targets)}
    with torch.device("meta"):
        net = build(config.architecture, net_config)
    if config.batch_size == 1 and any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()):
        raise UsageError(
            f"batch_size is 1; {config.architecture} has batch normalisation, which needs 2 or more"
        )


def _config(config: str | Path | dict[str, Any] | TrainConfig) -> TrainConfig:
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, dict):
        return make_config(config)
    require_local(config, "the config")
    return load_config(config)


def _require_same(store: Store, identity: dict[str, Any]) -> None:
    before = run_dir.read_json(store, run_dir.IDENTITY)
    if before is None:
        return
    found = ""
    if before["data_digest"] != identity["data_digest"]:
        found = "with other data"
    elif before["config"] != identity["config"]:
        old, new = before["config"], identity["config"]
        key = next(key for key in new if old.get(key) != new[key])
        found = f"with {key}: {old.get(key)!r}, the config now has {new[key]!r}"
    if found:
        raise DataError(
            f"{store.place} was started {found}",
            "add --fresh to start again, or choose another --out",
        )
