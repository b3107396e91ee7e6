"""Training a model, told from end to end: check, train, keep the best, say what came of it.

    recipe + dataset ──► Worker (in this process, or one a GPU on Ray Train) ──► RUN/model

Checkpoints are committed by rename; what a killed run leaves is what `resume` goes on from, with
the steps that it would have taken. On a CPU the weights are the same bit for bit, for the same
number of workers and threads.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import raygenome
from raygenome.cluster.resources import joined_machines
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, StorageError, UsageError
from raygenome.evaluation.predict import choose_device
from raygenome.models import build
from raygenome.progress.bars import BothProgress, NoProgress, Progress
from raygenome.progress.file import ProgressFile
from raygenome.storage.bucket import require_local
from raygenome.training.config import Recipe, load_recipe, make_recipe
from raygenome.training.order import steps_in_epoch
from raygenome.training.run_dir import TrainDir, claim, publish_log
from raygenome.training.workforce import wanted_workers

#: Version of run.json.
FORMAT = 1


@dataclass(frozen=True)
class TrainingRun:
    """A finished training run.

    Attributes:
        path: its folder.
        document: what run.json says: steps, epochs, samples, seconds, config, data_digest, best.
        log: a dict an epoch, as in log.jsonl.
    """

    path: Path
    document: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def model(self) -> Path:
        """The model directory of the best epoch."""
        return TrainDir(self.path).model


def train(
    config: str | Path | dict[str, Any] | Recipe,
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
        config: a recipe, its plain values, or the YAML file that holds them.
        data: the dataset's folder.
        out: the run's folder.
        workers: processes that share each batch: a number, "MIN-MAX" for as many as there is room
            for while it lasts, 0 for this process without Ray; None or "auto" takes one a GPU, and
            this process where there are fewer than two.
        device: auto, cpu or cuda.
        threads: of torch in each process, where that trains on a CPU. None gives each worker its
            share of the machine's cores, and leaves this process as it is where no worker is
            started. The weights are the same bit for bit for the same workers and threads.
        resume: go on with an unfinished run in `out`.
        fresh: remove the run in `out` first.
        address: a Ray cluster to use; None takes the one of RAY_ADDRESS, as within a Ray job, and
            else starts a private one where workers are needed.
        insecure: use a cluster also where no token guards it.
        progress: told how far it is.

    Raises:
        RaygenomeError: what the user can mend; `exit_code` is the command line's.
    """
    if resume and fresh:
        raise UsageError("--resume and --fresh contradict each other; give one")
    if isinstance(config, str | Path):
        require_local(config, "the recipe")
    require_local(data, "--data")
    require_local(out, "--out")
    recipe = _recipe(config)
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"--threads is {threads}; it must be a whole number of at least 1")
    dataset = Dataset.open(data)
    dataset.verify()
    check_fit(recipe, dataset)
    in_process = str(workers) == "0"
    with joined_machines(address, insecure=insecure, in_process=in_process) as machines:
        # A cluster that has no GPU now may get one.
        gpu = machines.gpus > 0 or (machines.cluster and device == "cuda")
        place = choose_device(device, recipe.precision, gpu=gpu)
        crew = wanted_workers(workers, place, recipe, machines)
        run = claim(Path(out), resume=resume, fresh=fresh)
        with run.lock():
            try:
                return _train(
                    run, recipe, dataset, (place, crew, address, threads), progress, fresh=fresh
                )
            except OSError as error:
                raise StorageError(
                    f"{error}; mend the cause and run again with --resume"
                ) from error


def _train(
    run: TrainDir,
    recipe: Recipe,
    dataset: Dataset,
    where: tuple[str, tuple[int, int], str | None, int | None],
    progress: Progress | None,
    *,
    fresh: bool,
) -> TrainingRun:
    from raygenome.training.loop import Task

    if fresh:
        run.clear()
    identity = {"config": recipe.plain(), "data_digest": dataset.digest}
    _require_same(run, identity)
    if run.run_json.exists():
        run.tidy()  # of one that was killed right behind its end
        return read_training(run.path)
    run.publish_json(identity, run.identity)
    device, (least, most), address, threads = where
    folders = str(Path(dataset.place).absolute()), str(run.path.absolute())
    task = Task(recipe.plain(), *folders, device, threads)
    file = ProgressFile("train", lambda data: run.note(data, run.told))
    told = BothProgress(progress or NoProgress(), file)
    with file.told(keep=lambda: True):
        if most == 0:
            _train_here(task, run, told)
        else:
            from raygenome.training.workers import train_on_ray

            train_on_ray(task, run, workers=(least, most), address=address, progress=told)
        finished = _finish(run, identity)
        file.state("done")
    run.tidy()
    return finished


def _train_here(task: Any, run: TrainDir, progress: Progress) -> None:
    """Train in this process, which no worker's death can end but its own."""
    from raygenome.training.loop import Worker

    worker = Worker(
        task,
        tell=lambda done, note: progress.update(done, note),
        after_epoch=lambda _line: publish_log(run, worker.state.log),
    )
    total = worker.recipe.epochs * worker.steps * worker.recipe.batch_size
    done = worker.state.step * worker.recipe.batch_size
    progress.begin("training", total, done, unit="samples")
    try:
        with _threads(task):
            worker.run()
    finally:
        progress.end()


@contextmanager
def _threads(task: Any) -> Iterator[None]:
    """Let torch have the threads that the task says; the caller's number is back in the end."""
    import torch

    before = torch.get_num_threads()
    if task.device == "cpu" and task.threads is not None:
        torch.set_num_threads(task.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(run: TrainDir, identity: dict[str, Any]) -> TrainingRun:
    """Write run.json; what an unfinished run needs can go then."""
    from raygenome.training.checkpoint import identity_of, load_checkpoint

    found = load_checkpoint(run, identity_of(**identity))
    if found is None:
        raise DataError(f"{run.checkpoints} holds no checkpoint; begin again with --fresh")
    log = found["state"]["log"]
    publish_log(run, log)
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
    run.publish_json(document, run.run_json)
    return TrainingRun(run.path, document, log)


def read_training(path: Path) -> TrainingRun:
    """Return a finished training run.

    Raises:
        DataError: it is not finished, or damaged.
    """
    run = TrainDir(path)
    document = run.read(run.run_json)
    if document is None or not run.log.exists():
        raise DataError(f"{path} holds no finished training run; go on with --resume")
    lines = run.log.read_text(encoding="utf-8").splitlines()
    return TrainingRun(path, document, [json.loads(line) for line in lines])


def check_fit(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse a recipe and a dataset that do not go together.

    Raises:
        DataError: an empty split, windows of another length, too few positives or samples.
        UsageError: the net cannot be.
    """
    split = dataset.split("train")
    if split.n_rows == 0:
        raise DataError(f"{dataset.place} has no training windows; build it with other splits")
    for key, there in (("window", dataset.window_size), ("targets", len(dataset.targets))):
        if recipe.net.get(key, there) != there:
            raise DataError(
                f"the recipe has net.{key} {recipe.net[key]}; {dataset.place} has {there}; "
                "leave it out of the recipe, or build the data anew"
            )
    few = [i for i, n in enumerate(split.positives().tolist()) if n < recipe.min_positives]
    if few:
        first = dataset.targets[few[0]]
        raise DataError(
            f"{len(few)} of {len(dataset.targets)} targets have fewer than {recipe.min_positives} "
            f"positive training windows, the first {first.name} with {split.positives()[few[0]]}; "
            "leave them out of the data, or lower min_positives"
        )
    steps = steps_in_epoch(
        split.n_rows, recipe.batch_size, strands=recipe.strands, limit=recipe.epoch_samples
    )
    if steps == 0:
        raise DataError(
            f"an epoch has fewer samples than a batch of {recipe.batch_size}; lower batch_size"
        )
    _check_net(recipe, dataset)


def _check_net(recipe: Recipe, dataset: Dataset) -> None:
    import torch

    config = {**recipe.net, "window": dataset.window_size, "targets": len(dataset.targets)}
    with torch.device("meta"):
        net = build(recipe.architecture, config)
    if recipe.batch_size == 1 and any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()):
        raise UsageError(
            f"batch_size is 1; {recipe.architecture} has batch normalisation, which needs 2 or more"
        )


def _recipe(config: str | Path | dict[str, Any] | Recipe) -> Recipe:
    if isinstance(config, Recipe):
        return config
    return make_recipe(config) if isinstance(config, dict) else load_recipe(config)


def _require_same(run: TrainDir, identity: dict[str, Any]) -> None:
    before = run.read(run.identity)
    if before is None:
        return
    for name, key in (("data", "data_digest"), ("config", "config")):
        if before[key] != identity[key]:
            what = name if key != "config" else _first_difference(before[key], identity[key])
            raise DataError(
                f"{run.path} was begun with another {what}; "
                "add --fresh to begin again, or choose another --out"
            )


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    key = next(key for key in now if before.get(key) != now[key])
    return f"{key} in its config ({before.get(key)!r}, now {now[key]!r})"
