"""The command line: a door. A command checks nothing and computes nothing; it calls the library.

Importing this module imports typer alone; what is heavy is imported inside the commands, so that
`--help` answers at once.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

import raygenome
from raygenome.cli import ask, data, demo, doctor, evaluate, jobs, models, score, submit, train
from raygenome.errors import RaygenomeError

app = typer.Typer(
    name="raygenome",
    help="Train DNA sequence CNNs and score every variant of a VCF with them, on a laptop or Ray.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raygenome {raygenome.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train DNA sequence CNNs and score every variant of a VCF with them, on a laptop or Ray."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


score.register(app)
ask.register(app)
app.add_typer(data.app, name="data", help="Make and look at training data.")
train.register(app)
evaluate.register(app)
app.add_typer(models.app, name="models", help="Get, make and look at models.")
submit.register(app)
app.add_typer(jobs.app, name="jobs")
demo.register(app)
doctor.register(app)


_INTERRUPTED = 130


class Terminated(BaseException):
    """SIGTERM: like KeyboardInterrupt, but asked for by a machine."""


def _on_sigterm(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us, as `>&-` does
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("raygenome").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, _on_sigterm)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Return the exit code of one command; what the user can mend is one line on stderr."""
    try:
        code = app(arguments, prog_name="raygenome", standalone_mode=False)
        if code == _INTERRUPTED:  # typer has caught the KeyboardInterrupt and says so in this way
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return _complain(error.format_message(), error.exit_code)
    except RaygenomeError as error:
        return _complain(str(error), error.exit_code)
    except FileNotFoundError as error:
        named = error.filename is not None  # Arrow puts the name in its text alone
        return _complain(f"{error.filename}: no such file" if named else str(error), 66)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; there is nobody to tell.
        sys.stdout = None
        return 141
    except OSError as error:
        return _complain(f"{error}; mend the cause and run again", 74)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped; a run that was begun goes on with --resume", _INTERRUPTED)
    except Terminated:
        return _complain("terminated; a run that was begun goes on with --resume", 143)


def _complain(message: str, code: int) -> int:
    typer.echo(f"raygenome: {message}", err=True)
    return code
