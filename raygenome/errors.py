"""The one family of errors that a user can mend, each with the exit code the command line gives it.

Whoever raises one writes a single line: what was found, what was needed, what to do about it.
Anything that is not of this family is a bug of ours and keeps its traceback.
"""


class RaygenomeError(Exception):
    """What the user can mend; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(RaygenomeError):
    """An option or a name that cannot be used as given."""

    exit_code = 2


class DataError(RaygenomeError):
    """An input whose content is damaged, of another kind than its name says, or contradictory."""

    exit_code = 65


class NoInput(RaygenomeError, FileNotFoundError):  # noqa: N818 - named as the exit code is
    """An input that does not exist or cannot be read."""

    exit_code = 66

    def __str__(self) -> str:
        """Return the message alone: FileNotFoundError would add an errno."""
        return str(self.args[0]) if self.args else "no such input"


class OutputError(RaygenomeError):
    """An output that exists already or cannot be made."""

    exit_code = 73


class StorageError(RaygenomeError):
    """Reading or writing failed underway: a full disk, a device error."""

    exit_code = 74


class PartialFailure(RaygenomeError):  # noqa: N818 - named as the exit code is
    """Some shards failed; the rest is committed and `--resume` tries them again."""

    exit_code = 75
