"""The command line. A command checks nothing and computes nothing; it calls the library.

Importing this module imports typer alone. Heavy imports are inside the commands, so that `--help`
answers at once.
"""

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

import raygenome
from raygenome.cli import ask, data, demo, doctor, evaluate, jobs, models, score, submit, train
from raygenome.cli.signals import Terminated, raise_on_termination
from raygenome.errors import RaygenomeError

_HELP = """Score every variant of a VCF with DNA sequence models, and train such models.

It runs on a laptop or on a Ray cluster. `raygenome COMMAND --help` shows one command.

Example: raygenome demo
"""

app = typer.Typer(
    name="raygenome",
    help=_HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raygenome {raygenome.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, help=_HELP)
def options(
    context: typer.Context,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Print the help where no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


score.register(app)
ask.register(app)
app.add_typer(data.app, name="data", help="Make and show training data.")
train.register(app)
evaluate.register(app)
app.add_typer(models.app, name="models", help="Get, make and show models.")
submit.register(app)
app.add_typer(jobs.app, name="jobs")
demo.register(app)
doctor.register(app)


_INTERRUPTED = 130
_INTERRUPTED_HINT = "{}; repeat the command with --resume to continue an unfinished run"


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("raygenome").setLevel(logging.INFO)
    raise_on_termination()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; an error of the user is one line on stderr."""
    try:
        code = app(arguments, prog_name="raygenome", standalone_mode=False)
        if code == _INTERRUPTED:  # how typer reports a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except RaygenomeError as error:
        return _fail(str(error), error.exit_code)
    except FileNotFoundError as error:
        named = error.filename is not None  # Arrow has the name only in its message
        return _fail(f"{error.filename}: no such file" if named else str(error), 66)
    except BrokenPipeError:
        # The reader of our output is gone, as with `| head`.
        sys.stdout = None
        return 141
    except OSError as error:
        return _fail(f"{error}; fix the problem and run again", 74)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_INTERRUPTED_HINT.format("interrupted"), _INTERRUPTED)
    except Terminated:
        return _fail(_INTERRUPTED_HINT.format("terminated"), 143)


def _fail(message: str, code: int) -> int:
    typer.echo(f"raygenome: {message}", err=True)
    return code
