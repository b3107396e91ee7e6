"""The errors that a user can fix, each with the exit code that the command line returns.

An error reports what was found and, in its second field, what the user can do about it. Any other
exception is a bug of this program and keeps its traceback.
"""


class RaygenomeError(Exception):
    """An error that the user can fix.

    Attributes:
        found: what was found, and what was needed where that is not obvious; no full stop.
        do: what the user can do, as an instruction; empty where `found` already says it.
        exit_code: what the command line exits with.
    """

    exit_code = 1

    def __init__(self, found: str, do: str = "") -> None:
        # Exception's own constructor: OSError's, which NoInput inherits, would read an errno.
        Exception.__init__(self, found, do)
        self.found = found
        self.do = do

    def __str__(self) -> str:
        """Return both fields in one line."""
        return f"{self.found}; {self.do}" if self.do else self.found


class UsageError(RaygenomeError):
    """An option or a name that cannot be used as given."""

    exit_code = 2


class DataError(RaygenomeError):
    """An input that is damaged, contradicts itself, or is not of the expected format."""

    exit_code = 65


class NoInput(RaygenomeError, FileNotFoundError):  # noqa: N818 - named as the exit code is
    """An input that does not exist or cannot be read."""

    exit_code = 66


class OutputError(RaygenomeError):
    """An output that exists already or cannot be made."""

    exit_code = 73


class StorageError(RaygenomeError):
    """Reading or writing failed during the run, for example on a full disk."""

    exit_code = 74


class PartialFailure(RaygenomeError):  # noqa: N818 - named as the exit code is
    """Some shards failed; the rest is committed, and `--resume` tries the failed ones again."""

    exit_code = 75
