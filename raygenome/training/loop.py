"""Training as one worker does it: epochs of steps, each followed by a look at the valid split.

One worker in this process, or several as Ray Train starts them: the steps are the same. All workers
run this code in lockstep; what only one of them may do (files, scores) the first does.

Axes: N samples of a batch, T targets.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raygenome.datasets.batches import Encoder, Loader
from raygenome.datasets.packed import Dataset
from raygenome.errors import DataError, StorageError
from raygenome.models import build
from raygenome.training import layers
from raygenome.training.averaging import Average
from raygenome.training.best import Best
from raygenome.training.checkpoint import (
    State,
    identity_of,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from raygenome.training.config import make_recipe
from raygenome.training.objective import (
    Objective,
    clip_norms,
    make_optimizer,
    rate,
    set_prior,
    shared,
)
from raygenome.training.order import epoch_samples, lots_of, steps_in_epoch
from raygenome.training.run_dir import TrainDir
from raygenome.training.task import Task
from raygenome.training.validation import Scores, validate

#: Steps between two looks at the clock and at the loss, which all workers take together.
LOOK_EVERY = 20
#: The end of each epoch is saved too, where that takes less than so many seconds, or a tenth of
#: the time since the last one: large nets on fast devices have epochs of a few seconds.
CHEAP_SAVE_S, SAVE_SHARE = 1.0, 0.1


#: Told how far training is: samples done, and a note such as the loss.
Tell = Callable[[int, str], None]


class Worker:
    """One of the workers that train a net.

    Args:
        task: what is to be trained.
        rank: this worker, from 0.
        world: how many there are; for more than one, torch.distributed has to be initialised.
        tell: told how far it is.
        after_epoch: called by every worker with the line of the log after each epoch.
    """

    def __init__(
        self,
        task: Task,
        *,
        rank: int = 0,
        world: int = 1,
        tell: Tell = lambda _done, _note: None,
        after_epoch: Callable[[dict[str, Any]], None] = lambda _line: None,
    ) -> None:
        self.recipe = recipe = make_recipe(task.recipe)
        self.rank, self.world = rank, world
        self.tell = tell
        self.after_epoch = after_epoch
        self._task = task
        self.run_dir = TrainDir(Path(task.out))
        self.dataset = Dataset.open(task.data)
        self.train, self.valid = self.dataset.split("train"), self.dataset.split("valid")
        self.steps = steps_in_epoch(
            self.train.n_rows, recipe.batch_size, strands=recipe.strands, limit=recipe.epoch_samples
        )
        self.device = torch.device(task.device)
        torch.backends.cuda.matmul.allow_tf32 = recipe.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
        self.net = self._new_net()
        self.optimizer = make_optimizer(self.net, recipe)
        self.lots = lots_of(recipe.batch_size, rank, world)
        self.loader = Loader(self.train, pin=task.device == "cuda")
        self.encoder = Encoder(
            self.dataset.window_size,
            len(self.dataset.targets),
            self.net.DEFAULT_CHANNEL_ORDER,
            self.net.DEFAULT_N_VALUE,
            self.device,
        )
        self.average = Average(self.net, recipe.average)
        self.state = self._restored()
        self._best = Best(recipe, self.dataset)
        objective = Objective(self.net, recipe, world)
        self.objective = objective if world == 1 else shared(objective, task.device)

    def run(self) -> State:
        """Train from where the last checkpoint stands to the end; return where that is."""
        self._began = time.monotonic() - self.state.seconds
        self._saved, self._cost = time.monotonic(), 0.0
        try:
            while not self._is_over():
                self._epoch()
        except torch.OutOfMemoryError as error:
            raise StorageError(
                f"the GPU has no memory for batches of {self.recipe.batch_size:,} windows; lower "
                "batch_size, or share them among more --workers"
            ) from error
        return self.state

    def _is_over(self) -> bool:
        patience = self.recipe.select.patience
        tired = patience is not None and self.state.stale >= patience
        return self.state.epoch >= self.recipe.epochs or tired

    def _new_net(self) -> Any:
        """Return the net with its first weights, which the seed decides, on the device."""
        config = {**self.recipe.net, "window": self.dataset.window_size}
        config["targets"] = len(self.dataset.targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            net = build(self.recipe.architecture, config)
        if self.recipe.prior:
            set_prior(net, self.train.positives(), self.train.n_rows)
        layers.prepare(net, world=self.world)
        return net.to(self.device)

    def _restored(self) -> State:
        """Return the state of the newest checkpoint, its weights put into net and optimizer."""
        identity = identity_of(self.recipe.plain(), self.dataset.digest)
        newest = newest_checkpoint(self.run_dir, identity) if self.rank == 0 else None
        step = self._agreed(-1 if newest is None else newest)
        if step < 0:
            return State(identity=identity)
        found = read_checkpoint(self.run_dir, int(step))
        self.net.load_state_dict(found["net"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.average.restore(found["average"])
        return State(**found["state"])

    def _epoch(self) -> None:
        """Train one epoch, or what is left of it, then validate, log, keep and save."""
        recipe, state = self.recipe, self.state
        samples = epoch_samples(
            recipe.seed,
            state.epoch,
            self.train.n_rows,
            strands=recipe.strands,
            shift=recipe.shift,
            limit=recipe.epoch_samples,
        )
        self.net.train()
        entropy = torch.zeros((), dtype=torch.float64, device=self.device)
        self._epoch_began = time.monotonic(), state.step_in_epoch
        batches = self.loader.batches(
            samples, recipe.batch_size, self.lots.samples, first=state.step_in_epoch
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
        recipe, state = self.recipe, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = rate(recipe, state.step, recipe.epochs * self.steps)
        layers.begin_step(self.net, recipe.seed, state.step, self.lots)
        losses = self.objective(self.encoder.windows(batch), self.encoder.labels(batch))
        self.optimizer.zero_grad()
        losses.objective.backward()
        self.optimizer.step()
        if recipe.max_norm is not None:
            clip_norms(self.net, recipe.max_norm)
        state.step += 1
        self.average.follow(self.net, state.step)
        state.step_in_epoch += 1
        return losses.cross_entropy.double()

    def _look(self, entropy: torch.Tensor) -> None:
        """Say how far it is, stop on a loss that is no number, save where it is time to."""
        self._collect(entropy)
        loss = self._train_loss()
        self._require_finite(loss)
        note = f"epoch {self.state.epoch + 1} of {self.recipe.epochs}, loss {loss:.4f}"
        self.tell(self.state.step * self.recipe.batch_size, note)
        due = time.monotonic() - self._saved > self._task.checkpoint_s
        if self._agreed(due):
            self._save()

    def _require_finite(self, loss: float) -> None:
        """Stop on a loss or a weight that is no number; all workers have the same and agree."""
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not all(bool(weights.isfinite().all()) for weights in self.net.parameters()):
            what = "a weight is not finite"
        else:
            return
        raise DataError(
            f"{what} at step {self.state.step:,}; "
            "lower optimizer.lr or add a warm-up, and begin again with --fresh"
        )

    def _collect(self, entropy: torch.Tensor) -> None:
        """Move what this worker has summed, and all others have, into the state."""
        if self.world > 1:
            dist.all_reduce(entropy)
        self.state.entropy += entropy.item()
        entropy.zero_()

    def _train_loss(self) -> float:
        """Return the mean cross entropy of this epoch's samples so far, over the targets."""
        samples = max(self.state.step_in_epoch, 1) * self.recipe.batch_size
        return self.state.entropy / samples / len(self.dataset.targets)

    def _agreed(self, answer: float) -> float:
        """Return the first worker's answer, in all of them."""
        if self.world == 1:
            return answer
        said = torch.tensor(answer, dtype=torch.float64, device=self.device)
        dist.broadcast(said, 0)
        return said.item()

    def _end_epoch(self) -> None:
        state, began = self.state, self._epoch_began
        here = (state.step_in_epoch - began[1]) * self.recipe.batch_size
        line: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "samples": state.step * self.recipe.batch_size,
            "train_loss": _rounded(self._train_loss()),
            "lr": rate(self.recipe, state.step - 1, self.recipe.epochs * self.steps),
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
            self._best.take(line, self.average.net)
        since = time.monotonic() - self._saved
        cheap = self._cost < max(CHEAP_SAVE_S, SAVE_SHARE * since)
        if self._agreed(cheap or self._is_over()):
            self._save()
        loss = line["train_loss"] if line["valid_loss"] is None else line["valid_loss"]
        self.tell(line["samples"], f"epoch {line['epoch']} of {self.recipe.epochs}, loss {loss}")
        self.after_epoch(line)

    def _is_best(self, line: dict[str, Any]) -> bool:
        """Return whether an epoch is the best so far; without a valid split the last one is."""
        value = line[f"valid_{self.recipe.select.by}"]
        if value is None:
            return True
        better = value if self.recipe.select.by != "loss" else -value
        if self.state.best is not None and better <= self.state.best:
            return False
        self.state.best = better
        return True

    def _validated(self) -> dict[str, float | None]:
        """Return what the valid split says of the net, for the log; None where it says nothing."""
        if self.valid.n_rows == 0:
            return {f"valid_{name}": None for name in Scores._fields}
        found = validate(
            self.average.net,
            self.valid,
            rank=self.rank,
            world=self.world,
            device=self.device,
            precision=self.recipe.precision,
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
            # The model first: what a checkpoint calls the best so far is there.
            self._best.export(self.run_dir.model)
            average = self.average.state()
            save_checkpoint(self.run_dir, self.state, self.net, self.optimizer, average)
        self._saved = time.monotonic()
        self._cost = self._saved - before


def _rounded(value: float) -> float:
    """Return seven digits: sums in another order differ in the sixteenth."""
    return float(f"{value:.7g}")
