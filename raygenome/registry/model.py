"""`Model`: a model directory, opened once. This object is passed to all code that needs the model.

Opening reads model.json and the target table, which takes milliseconds and does not import torch.
The weights are hashed at most once per object, and read when a net is asked for.
"""

import dataclasses
import hashlib
import json
import typing
from functools import cached_property
from pathlib import Path

from raygenome.errors import DataError, UsageError
from raygenome.genome.targets import Target
from raygenome.models import build
from raygenome.registry.modeldir import (
    SPEC_FILE,
    TARGETS_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    load_spec,
    load_targets,
    weights_digest,
)
from raygenome.registry.registry import resolve
from raygenome.storage.bucket import is_remote

if typing.TYPE_CHECKING:
    from raygenome.models.net import Net


@dataclasses.dataclass(frozen=True)
class Model:
    """An opened model; make one with `Model.open`.

    Attributes:
        directory: the model directory, on this machine.
        place: what another process opens it by: its URL if it lies in an object store, else the
            path of `directory`.
        spec: what model.json says.
        targets: one for each output, in order.
    """

    directory: Path
    place: str
    spec: ModelSpec
    targets: list[Target]

    @classmethod
    def open(cls, name_or_dir: str | Path) -> "Model":
        """Open a model by its name in the registry, its directory or its URL.

        Raises:
            NoInput: there is no such model, or one of its files is missing.
            DataError: model.json or the target table is damaged, or they contradict each other.
        """
        directory = resolve(name_or_dir)
        spec = load_spec(directory)
        place = str(name_or_dir) if is_remote(name_or_dir) else str(directory)
        return cls(directory, place, spec, load_targets(directory, spec))

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of everything in a model that decides its scores.

        That is model.json except the name and where the model came from, and the target table. The
        weights are included by their own digest, which model.json holds.
        """
        spec = dataclasses.asdict(self.spec)
        for about in ("name", "source", "licence", "training"):
            del spec[about]
        table = (self.directory / TARGETS_FILE).read_bytes()
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode() + table).hexdigest()

    def check(self) -> None:
        """Hash the weights file, unless that was done before.

        Raises:
            NoInput: the file is missing.
            DataError: it is not the file that model.json names by its digest.
        """
        found = self._found_digest
        if found != self.spec.weights_sha256:
            raise DataError(
                f"{self.directory / WEIGHTS_FILE} has sha256 {found}; {SPEC_FILE} says "
                f"{self.spec.weights_sha256}",
                "the weights are damaged or belong to another model: import it again",
            )

    @cached_property
    def _found_digest(self) -> str:
        return weights_digest(self.directory / WEIGHTS_FILE)

    def empty_net(self) -> "Net":
        """Return the net without weights, on torch's "meta" device: enough to plan with.

        Raises:
            DataError: this raygenome does not know the architecture or its config.
        """
        import torch

        try:
            with torch.device("meta"):  # no time spent on random weights that are replaced at once
                return build(self.spec.architecture, self.spec.config)
        except UsageError as error:
            raise DataError(f"{self.directory / SPEC_FILE}: {error.found}", error.do) from None

    def net(self) -> "Net":
        """Return a new net with the weights, float32 on the CPU, in evaluation mode.

        Raises:
            NoInput: the weights file is missing.
            DataError: as `check` and `empty_net`, or the weights do not fit the net.
        """
        from raygenome.registry import weights

        self.check()
        net = self.empty_net()
        path = self.directory / WEIGHTS_FILE
        weights.fill(net, weights.read_weights(path), source=str(path))
        return net.eval()
