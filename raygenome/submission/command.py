"""The command that the user typed, rewritten so that it means the same on a cluster.

Data, models and runs stay where they are: a path becomes absolute, and must lead to the same files
on the cluster. Small files that control the command are uploaded with it, in a folder that is the
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

#: Parameters whose files the cluster must reach under the same path.
SHARED_PATHS = {"score": ("vcf", "fasta", "out"), "train": ("data", "out")}
#: Parameters whose files are uploaded with the job.
UPLOADED = {"score": ("regions_file",), "train": ("config",)}
#: The option that starts a run again, and so contradicts --resume.
RESTART_FLAG = {"score": "overwrite", "train": "fresh"}
COMMANDS = tuple(SHARED_PATHS)

#: Largest file that is uploaded, in bytes.
UPLOAD_BYTES = 10_000_000


@dataclass(frozen=True)
class CliArgument:
    """A parameter that was given.

    Attributes:
        name: of the parameter, in the command's function.
        flag: the option as it is typed, "" for a positional argument.
        values: each as text; a switch has none.
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
    """A raygenome command: its name and the parameters that were given."""

    name: str
    arguments: tuple[CliArgument, ...]

    def get(self, name: str) -> CliArgument | None:
        """Return a parameter, None if it was not given."""
        return next((each for each in self.arguments if each.name == name), None)

    @property
    def out(self) -> str | None:
        """Folder of the run; None if nothing is written."""
        found = self.get("out")
        return found.values[0] if found else None

    def words(self) -> list[str]:
        """Return the command as words; positional arguments come first."""
        ordered = sorted(self.arguments, key=lambda each: each.flag != "")
        return [self.name, *(word for each in ordered for word in each.words())]

    def line(self) -> str:
        """Return the command as it is typed in a shell."""
        return shlex.join(["raygenome", *self.words()])

    def changed(self, names: Iterable[str], change: Callable[[str], str]) -> "Command":
        """Return the command with `change` applied to each value of some parameters."""
        names = set(names)
        return replace(
            self,
            arguments=tuple(
                replace(each, values=tuple(map(change, each.values)))
                if each.name in names
                else each
                for each in self.arguments
            ),
        )


def require_job_command(name: str) -> None:
    """Raise a UsageError unless the command can run as a job."""
    if name not in COMMANDS:
        raise UsageError(
            f"{name!r} cannot be submitted; a cluster runs {' and '.join(COMMANDS)}",
            "raygenome submit -- score ...",
        )


def prepare(command: Command, *, switches: Sequence[str] = ()) -> Command:
    """Return the command so that it means the same in any folder.

    Args:
        command: as typed.
        switches: to add if they were not given, such as "resume".

    Raises:
        UsageError: it reads standard input, names a cluster of its own, contradicts itself, or has
            a URL where only a path is possible.
    """
    require_job_command(command.name)
    vcf = command.get("vcf")
    if vcf and "-" in vcf.values:
        raise UsageError("a job has no standard input", "give the VCF by its path or URL")
    if command.get("address"):
        raise UsageError(
            "--address after -- belongs to the command itself, but a job runs on the cluster that "
            "it is sent to",
            f"raygenome submit --address URL -- {command.name} ...",
        )
    if command.name == "train":
        _require_local_paths(command)
    more = tuple(CliArgument(name, f"--{name}") for name in switches if not command.get(name))
    command = replace(command, arguments=command.arguments + more)
    restart = RESTART_FLAG[command.name]
    if command.get("resume") and command.get(restart):
        raise UsageError(f"--resume and --{restart} contradict each other", "give one of them")
    command = command.changed(SHARED_PATHS[command.name] + UPLOADED[command.name], absolute)
    return command.changed(["model"], _absolute_model)


def _require_local_paths(command: Command) -> None:
    for each in command.arguments:
        if each.name in UPLOADED[command.name]:
            for place in each.values:
                require_local(place, each.flag or "the config")


def absolute(place: str) -> str:
    """Return a path as an absolute path, and a URL unchanged."""
    return place if is_remote(place) else str(Path(place).absolute())


def _absolute_model(model: str) -> str:
    """Return the name of a model unchanged; make a directory, as the registry sees it, absolute."""
    from raygenome.registry.modeldir import SPEC_FILE

    is_path = "/" in model or (Path(model) / SPEC_FILE).is_file()
    return absolute(model) if is_path else model


def pack(command: Command, folder: Path) -> Command:
    """Copy the files to upload into `folder`; return the command that reads the copies.

    The names of the copies depend only on the command, so that a resumed run finds the same names.

    Raises:
        NoInput: a file does not exist or cannot be read.
        UsageError: a file is too large to upload.
    """

    def copied(place: str) -> str:
        if is_remote(place):
            return place  # the job reads it from there
        number = len(list((folder / "inputs").glob("*"))) + 1
        copy = Path("inputs") / str(number) / Path(place).name
        _copy(Path(place), folder / copy)
        return str(copy)

    return command.changed(UPLOADED[command.name], copied)


def _copy(file: Path, copy: Path) -> None:
    if not file.is_file():
        raise NoInput(f"there is no file {file}", "it is read here and uploaded with the job")
    size = file.stat().st_size
    if size > UPLOAD_BYTES:
        raise UsageError(
            f"{file} has {size / 1e6:,.1f} MB and would be uploaded with the job, which is for "
            f"files of up to {UPLOAD_BYTES / 1e6:.0f} MB",
            "make it smaller",
        )
    copy.parent.mkdir(parents=True)
    try:
        shutil.copyfile(file, copy)
    except PermissionError:
        raise NoInput(f"{file} cannot be read; it is uploaded with the job") from None


def entrypoint(command: Command, *, bin_folder: str | None) -> str:
    """Return the shell command of the job.

    It runs the raygenome that is installed on the cluster. `exec` replaces the shell by it, so that
    SIGTERM reaches it and its exit code is the job's.

    Args:
        command: what `pack` returned.
        bin_folder: the last folder in which to look for raygenome, for a head on this machine that
            was started without an activated environment.
    """
    words = shlex.join(["raygenome", *command.words()])
    if bin_folder is None:
        return f"exec {words}"
    return f'PATH="$PATH":{shlex.quote(bin_folder)} exec {words}'


def argument(name: str, flag: str, value: Any) -> CliArgument | None:
    """Return a parameter with its value as text; None if the value means that it is not given."""
    if value is None or value is False:
        return None
    if value is True:
        return CliArgument(name, flag)
    values = value if isinstance(value, list | tuple) else [value]
    return CliArgument(name, flag, tuple(map(str, values))) if values else None
