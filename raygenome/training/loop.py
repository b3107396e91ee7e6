"""The training loop of one worker: epochs of steps, each followed by a validation.

The steps are the same for one worker in this process and for several that Ray Train starts. All
workers run this code in lockstep. Rank 0 alone writes files and computes scores.

Axes: N samples of a batch, T targets.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from raygenome.datasets.batches import Encoder, Loader
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, StorageError
from raygenome.models import build
from raygenome.storage.object_store import open_store
from raygenome.training import layers
from raygenome.training.checkpoint import (
    BestModel,
    State,
    identity_of,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from raygenome.training.config import TrainConfig
from raygenome.training.objective import (
    MovingAverage,
    Objective,
    clip_norms,
    learning_rate,
    make_optimizer,
    set_prior,
    shared,
)
from raygenome.training.order import epoch_samples, microbatches_of, steps_in_epoch
from raygenome.training.reports import Position
from raygenome.training.validation import Scores, validate

#: Steps between two checks of the clock and the loss. All workers check at the same step.
LOOK_EVERY = 20
#: A checkpoint is also saved at the end of an epoch if saving takes less than this many seconds, or
#: than this fraction of the time since the last one: large nets on fast devices have short epochs.
CHEAP_SAVE_S, SAVE_SHARE = 1.0, 0.1
#: Seconds of training that a killed run may lose, plus the steps up to the next check.
CHECKPOINT_S = 300.0


@dataclass(frozen=True)
class Task:
    """The task that is sent to the workers.

    Attributes:
        config: the configuration.
        data: folder or URL of the dataset.
        out: folder or URL of the run.
        device: "cpu" or "cuda".
        threads: threads of torch in each worker on a CPU; None: see `run.train`.
        checkpoint_s: see `CHECKPOINT_S`.
    """

    config: TrainConfig
    data: str
    out: str
    device: str
    threads: int | None = None
    checkpoint_s: float = CHECKPOINT_S


class Worker:
    """One of the workers that train a net.

    Args:
        task: what to train.
        rank: number of this worker, from 0.
        world: number of workers; for more than one, torch.distributed must be initialised.
        on_progress: called by every worker, every few steps, with the position of training.
        after_epoch: called by every worker after each epoch, with the new line of the log.
    """

    def __init__(
        self,
        task: Task,
        *,
        rank: int = 0,
        world: int = 1,
        on_progress: Callable[[Position], None] = lambda _position: None,
        after_epoch: Callable[[dict[str, Any]], None] = lambda _line: None,
    ) -> None:
        self.config = config = task.config
        self.rank, self.world = rank, world
        self.on_progress = on_progress
        self.after_epoch = after_epoch
        self._task = task
        self.store = open_store(task.out)
        self.dataset = Dataset.open(task.data)
        self.train, self.valid = self.dataset.split("train"), self.dataset.split("valid")
        self.steps = steps_in_epoch(
            self.train.n_rows, config.batch_size, strands=config.strands, limit=config.epoch_samples
        )
        self.device = torch.device(task.device)
        torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        self.net = self._new_net()
        self.optimizer = make_optimizer(self.net, config)
        self.microbatches = microbatches_of(config.batch_size, rank, world)
        self.loader = Loader(self.train, pin=task.device == "cuda")
        self.encoder = Encoder(
            self.dataset.window_size,
            len(self.dataset.targets),
            self.net.ENCODING.channels,
            self.net.ENCODING.n_value,
            self.device,
        )
        self.average = MovingAverage(self.net, config.average)
        self.state = self._restored()
        self._first = self.state.step
        self._best = BestModel(config, self.dataset)
        objective = Objective(self.net, config, world)
        self.objective = objective if world == 1 else shared(objective, task.device)

    def position(self, note: str = "") -> Position:
        """Return the position of training."""
        batch = self.config.batch_size
        total = self.config.epochs * self.steps * batch
        return Position(self.state.step * batch, total, self._first * batch, note)

    def run(self) -> State:
        """Train from the newest checkpoint to the end; return the final state."""
        self._began = time.monotonic() - self.state.seconds
        self._saved, self._cost = time.monotonic(), 0.0
        try:
            while not self._is_over():
                self._epoch()
        except torch.OutOfMemoryError as error:
            raise StorageError(
                f"the GPU has no memory for batches of {self.config.batch_size:,} windows",
                "lower batch_size, or share them among more --workers",
            ) from error
        return self.state

    def close(self) -> None:
        """Remove temporary files from this machine."""
        self.store.close()

    def _is_over(self) -> bool:
        patience = self.config.select.patience
        stale = patience is not None and self.state.stale >= patience
        return self.state.epoch >= self.config.epochs or stale

    def _new_net(self) -> Any:
        """Return the net on the device; its initial weights depend on the seed alone."""
        config = {**self.config.net, "window": self.dataset.window_size}
        config["targets"] = len(self.dataset.targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            net = build(self.config.architecture, config)
        if self.config.prior:
            set_prior(net, self.train.positives(), self.train.n_rows)
        layers.prepare(net, world=self.world)
        return net.to(self.device)

    def _restored(self) -> State:
        """Return the state of the newest checkpoint, after loading it into net and optimizer."""
        identity = identity_of(self.config.plain(), self.dataset.digest)
        newest = newest_checkpoint(self.store, identity) if self.rank == 0 else None
        step = self._agreed(-1 if newest is None else newest)
        if step < 0:
            return State(identity=identity)
        found = read_checkpoint(self.store, int(step))
        self.net.load_state_dict(found["net"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.average.restore(found["average"])
        return State(**found["state"])

    def _epoch(self) -> None:
        """Train one epoch, or the rest of it, then validate, log and save."""
        config, state = self.config, self.state
        samples = epoch_samples(
            config.seed,
            state.epoch,
            self.train.n_rows,
            strands=config.strands,
            shift=config.shift,
            limit=config.epoch_samples,
        )
        self.net.train()
        entropy = torch.zeros((), dtype=torch.float64, device=self.device)
        self._epoch_began = time.monotonic(), state.step_in_epoch
        batches = self.loader.batches(
            samples, config.batch_size, self.microbatches.samples, first=state.step_in_epoch
        )
        with closing(batches):
            for batch in batches:
                entropy += self._step(batch.to(self.device))
                if state.step_in_epoch % LOOK_EVERY == 0:
                    self._look(entropy)
        self._collect(entropy)
        self._require_finite(self._train_loss())
        self._end_epoch()

    def _step(self, batch: Any) -> torch.Tensor:
        """Take one step; return this worker's cross entropy, summed."""
        config, state = self.config, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, config.epochs * self.steps)
        layers.begin_step(self.net, config.seed, state.step, self.microbatches)
        losses = self.objective(self.encoder.windows(batch), self.encoder.labels(batch))
        self.optimizer.zero_grad()
        losses.objective.backward()
        self.optimizer.step()
        if config.max_norm is not None:
            clip_norms(self.net, config.max_norm)
        state.step += 1
        self.average.update(self.net, state.step)
        state.step_in_epoch += 1
        return losses.cross_entropy.double()

    def _look(self, entropy: torch.Tensor) -> None:
        """Report progress, stop if the loss is not finite, save a checkpoint if it is time."""
        self._collect(entropy)
        loss = self._train_loss()
        self._require_finite(loss)
        note = f"epoch {self.state.epoch + 1} of {self.config.epochs}, loss {loss:.4f}"
        self.on_progress(self.position(note))
        due = time.monotonic() - self._saved > self._task.checkpoint_s
        if self._agreed(due):
            self._save()

    def _require_finite(self, loss: float) -> None:
        """Stop if the loss or a weight is not finite; all workers hold the same values."""
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not all(bool(weights.isfinite().all()) for weights in self.net.parameters()):
            what = "a weight is not finite"
        else:
            return
        raise DataError(
            f"{what} at step {self.state.step:,}",
            "lower optimizer.lr or add a warm-up, and start again with --fresh",
        )

    def _collect(self, entropy: torch.Tensor) -> None:
        """Add the sums of all workers to the state, and reset this worker's."""
        if self.world > 1:
            dist.all_reduce(entropy)
        self.state.entropy += entropy.item()
        entropy.zero_()

    def _train_loss(self) -> float:
        """Return the cross entropy of this epoch so far, mean over samples and targets."""
        samples = max(self.state.step_in_epoch, 1) * self.config.batch_size
        return self.state.entropy / samples / len(self.dataset.targets)

    def _agreed(self, answer: float) -> float:
        """Return rank 0's answer to every worker."""
        if self.world == 1:
            return answer
        shared_answer = torch.tensor(answer, dtype=torch.float64, device=self.device)
        dist.broadcast(shared_answer, 0)
        return shared_answer.item()

    def _end_epoch(self) -> None:
        state, began = self.state, self._epoch_began
        here = (state.step_in_epoch - began[1]) * self.config.batch_size
        line: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "samples": state.step * self.config.batch_size,
            "train_loss": _rounded(self._train_loss()),
            "lr": learning_rate(self.config, state.step - 1, self.config.epochs * self.steps),
            "samples_per_s": _rounded(here / max(time.monotonic() - began[0], 1e-9)),
        }
        line |= self._validated()
        state.epoch, state.step_in_epoch, state.entropy = state.epoch + 1, 0, 0.0
        line["best"] = self._is_best(line)
        state.stale = 0 if line["best"] else state.stale + 1
        state.seconds = time.monotonic() - self._began
        line["seconds"] = _rounded(state.seconds)
        state.log.append(line)
        if line["best"] and self.rank == 0:
            self._best.keep(line, self.average.net)
        since = time.monotonic() - self._saved
        cheap = self._cost < max(CHEAP_SAVE_S, SAVE_SHARE * since)
        if self._agreed(cheap or self._is_over()):
            self._save()
        loss = line["train_loss"] if line["valid_loss"] is None else line["valid_loss"]
        note = f"epoch {line['epoch']} of {self.config.epochs}, loss {loss}"
        self.on_progress(self.position(note))
        self.after_epoch(line)

    def _is_best(self, line: dict[str, Any]) -> bool:
        """Return whether an epoch is the best so far; without validation the last one is."""
        value = line[f"valid_{self.config.select.by}"]
        if value is None:
            return True
        better = value if self.config.select.by != "loss" else -value
        if self.state.best is not None and better <= self.state.best:
            return False
        self.state.best = better
        return True

    def _validated(self) -> dict[str, float | None]:
        """Return the validation scores for the log; None for scores that are not defined."""
        if self.valid.n_rows == 0:
            return {f"valid_{name}": None for name in Scores._fields}
        found = validate(
            self.average.net,
            self.valid,
            rank=self.rank,
            world=self.world,
            device=self.device,
            precision=self.config.precision,
        )
        self._require_finite(found.loss)
        return {
            f"valid_{name}": None if math.isnan(value) else _rounded(value)
            for name, value in found._asdict().items()
        }

    def _save(self) -> None:
        before = time.monotonic()
        self.state.seconds = before - self._began
        if self.rank == 0:
            # The model first, so that the best model of a checkpoint is always there.
            self._best.export(self.store)
            average = self.average.state()
            save_checkpoint(self.store, self.state, self.net, self.optimizer, average)
        self._saved = time.monotonic()
        self._cost = self._saved - before


def _rounded(value: float) -> float:
    """Return a value with seven digits; adding in another order changes the sixteenth digit."""
    return float(f"{value:.7g}")
