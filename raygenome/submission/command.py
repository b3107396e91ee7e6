"""What the user typed, as a command that means the same on a cluster.

Data, models and runs stay where they are: a path becomes absolute, and has to lead to the same
files on the cluster. Small files that steer the command travel with it, in a folder that is the
job's working directory.
"""

import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raygenome.errors import NoInput, UsageError
from raygenome.storage.bucket import is_remote, require_local

#: What is read or written where the cluster can reach it, by the parameters' names.
DATA = {"score": ("vcf", "fasta", "out"), "train": ("data", "out")}
#: What travels with the job.
SENT = {"score": ("regions_file",), "train": ("config",)}
#: What contradicts --resume.
ANEW = {"score": "overwrite", "train": "fresh"}
COMMANDS = tuple(DATA)

#: Most bytes of a file that travels.
SENT_BYTES = 10_000_000


@dataclass(frozen=True)
class Given:
    """A parameter that was given.

    Attributes:
        name: of the parameter, as the command's function calls it.
        flag: how it is written, "" for an argument.
        values: each as text; a switch that is on has none.
    """

    name: str
    flag: str
    values: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return it as it is typed."""
        if not self.flag:
            return list(self.values)
        if not self.values:
            return [self.flag]
        return [
            word
            for value in self.values
            for word in ([f"{self.flag}={value}"] if value[:1] == "-" else [self.flag, value])
        ]


@dataclass(frozen=True)
class Command:
    """A raygenome command: its name and what it was given, less what has its default."""

    name: str
    given: tuple[Given, ...]

    def get(self, name: str) -> Given | None:
        """Return a parameter, None where it was not given."""
        return next((given for given in self.given if given.name == name), None)

    @property
    def out(self) -> str | None:
        """Where the run goes; None where nothing is written."""
        given = self.get("out")
        return given.values[0] if given else None

    def words(self) -> list[str]:
        """Return the command as words; the arguments come first."""
        ordered = sorted(self.given, key=lambda given: given.flag != "")
        return [self.name, *(word for given in ordered for word in given.words())]

    def line(self) -> str:
        """Return the command as it is typed in a shell."""
        return shlex.join(["raygenome", *self.words()])

    def changed(self, names: Iterable[str], change: Callable[[str], str]) -> "Command":
        """Return the command with `change` made to each value of some parameters."""
        names = set(names)
        return replace(
            self,
            given=tuple(
                replace(given, values=tuple(map(change, given.values)))
                if given.name in names
                else given
                for given in self.given
            ),
        )


def refuse_other(name: str) -> None:
    """Raise a UsageError unless the command is one that can run as a job."""
    if name not in COMMANDS:
        raise UsageError(
            f"{name!r} cannot be submitted; what runs on a cluster is {' or '.join(COMMANDS)}: "
            "raygenome submit -- score ..."
        )


def settle(command: Command, *, switches: Sequence[str] = ()) -> Command:
    """Return the command as it means the same in any folder.

    Args:
        command: as typed.
        switches: those that it is to have, whether it was given them or not: "resume".

    Raises:
        UsageError: it reads standard input, goes to a cluster of its own, contradicts itself, or
            names a URL where that cannot be.
    """
    refuse_other(command.name)
    vcf = command.get("vcf")
    if vcf and "-" in vcf.values:
        raise UsageError("a job has no standard input; give the VCF by its path or URL")
    if command.get("address"):
        raise UsageError(
            "--address behind -- is the command's own; a job runs on the cluster that it is sent "
            f"to: raygenome submit --address URL -- {command.name} ..."
        )
    if command.name == "train":
        _require_paths(command)
    more = tuple(Given(name, f"--{name}") for name in switches if not command.get(name))
    command = replace(command, given=command.given + more)
    anew = ANEW[command.name]
    if command.get("resume") and command.get(anew):
        raise UsageError(f"--resume and --{anew} contradict each other; give one")
    command = command.changed(DATA[command.name] + SENT[command.name], absolute)
    return command.changed(["model"], _model)


def _require_paths(command: Command) -> None:
    for given in command.given:
        if given.name in DATA[command.name] + SENT[command.name]:
            for place in given.values:
                require_local(place, given.flag or "the recipe")


def absolute(place: str) -> str:
    """Return a path as an absolute one, and a URL as it is."""
    return place if is_remote(place) else str(Path(place).absolute())


def _model(model: str) -> str:
    """Return a model's name as it is, and its directory as `registry.resolve` takes it for one."""
    from raygenome.registry.modeldir import SPEC_FILE

    is_path = "/" in model or (Path(model) / SPEC_FILE).is_file()
    return absolute(model) if is_path else model


def pack(command: Command, folder: Path) -> Command:
    """Copy what travels into `folder`; return the command that reads the copies from there.

    The names of the copies depend on the command alone, so that a resumed run meets its own.

    Raises:
        NoInput: a file does not exist or cannot be read.
        UsageError: a file is too large to travel.
    """

    def send(place: str) -> str:
        if is_remote(place):
            return place  # the job reads it where it is
        number = len(list((folder / "inputs").glob("*"))) + 1
        copy = Path("inputs") / str(number) / Path(place).name
        _copy(Path(place), folder / copy)
        return str(copy)

    return command.changed(SENT[command.name], send)


def _copy(file: Path, copy: Path) -> None:
    if not file.is_file():
        raise NoInput(f"there is no file {file}; it is read here and travels with the job")
    size = file.stat().st_size
    if size > SENT_BYTES:
        raise UsageError(
            f"{file} has {size / 1e6:,.1f} MB and travels with the job, which is for files of up "
            f"to {SENT_BYTES / 1e6:.0f} MB; make it smaller"
        )
    copy.parent.mkdir(parents=True)
    try:
        shutil.copyfile(file, copy)
    except PermissionError:
        raise NoInput(f"{file} cannot be read; it travels with the job") from None


def entrypoint(command: Command, *, bin_folder: str | None) -> str:
    """Return the shell command of the job.

    The raygenome that runs is the one installed where the cluster is. `exec` puts it in the place
    of the shell, so that SIGTERM reaches it and its exit code is the job's.

    Args:
        command: what `pack` returned.
        bin_folder: where raygenome is looked for last, for a head on this machine that was
            started without an activated environment.
    """
    words = shlex.join(["raygenome", *command.words()])
    if bin_folder is None:
        return f"exec {words}"
    return f'PATH="$PATH":{shlex.quote(bin_folder)} exec {words}'


def given(name: str, flag: str, value: Any) -> Given | None:
    """Return a parameter with its value as text, None where the value is like not giving it."""
    if value is None or value is False:
        return None
    if value is True:
        return Given(name, flag)
    values = value if isinstance(value, list | tuple) else [value]
    return Given(name, flag, tuple(map(str, values))) if values else None
