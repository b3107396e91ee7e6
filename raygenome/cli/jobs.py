"""`raygenome jobs`: list, status, logs, stop."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from raygenome.cli.options import AsJson, Command, Dashboard, Insecure
from raygenome.cli.submit import connect, follow_job
from raygenome.cli.tables import print_table

if TYPE_CHECKING:
    from raygenome.submission.status import JobState

app = typer.Typer(
    help="Manage the jobs that `raygenome submit` sent.\n\n"
    "Example: raygenome jobs status raygenome-score-1a2b3c4d",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Job = Annotated[str, typer.Argument(metavar="ID", help="Id that `raygenome submit` printed.")]


@app.command(
    "list",
    cls=Command,
    help="List the jobs sent by raygenome, newest first.\n\n"
    "Example: raygenome jobs list --address http://head:8265",
)
def list_(address: Dashboard = None, insecure: Insecure = False, as_json: AsJson = False) -> None:
    """Print one row per job."""
    client = connect(address, insecure=insecure)

    from raygenome.submission.status import state_of

    states = [state_of(job) for job in client.jobs()]
    if as_json:
        rows = [_row(state) for state in states]
        typer.echo(json.dumps(rows, indent=1))
        return
    if states:
        table = [(s.id, _ended(s), _when(s.started), s.command) for s in states]
        print_table(["id", "state", "started", "command"], table, header=False, wrap=["command"])
    else:
        typer.echo(f"raygenome has sent no job to {client.url}")


@app.command(
    cls=Command,
    help="Show state and progress of a job.\n\n"
    "Example: raygenome jobs status raygenome-score-1a2b3c4d",
)
def status(
    job: Job, address: Dashboard = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Print what Ray knows about the job, and the progress that its run reports."""
    client = connect(address, insecure=insecure)

    from raygenome.submission.status import describe_progress, look

    state = look(client, job)
    if as_json:
        more = {name: getattr(state, name) for name in ("progress", "log_line", "why")}
        typer.echo(json.dumps({**_row(state), **more}, indent=1))
        return
    lines = [
        f"job       {state.id}",
        f"state     {_ended(state)}",
        f"command   {state.command}",
        f"started   {_when(state.started)}",
    ]
    if state.ended is not None:
        lines.append(f"ended     {_when(state.ended)}")
    if state.progress:
        lines.append(f"progress  {describe_progress(state.progress, over=state.over)}")
    if state.log_line:
        lines.append(f"log       {state.log_line}")
    if state.why:
        lines.append(f"why       {state.why}")
    typer.echo("\n".join(lines))


@app.command(
    cls=Command,
    help="Print the log of a job.\n\n"
    "Example: raygenome jobs logs raygenome-score-1a2b3c4d --follow",
)
def logs(
    job: Job,
    address: Dashboard = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow the log; exit with the job's code.")
    ] = False,
    insecure: Insecure = False,
) -> None:
    """Print a job's log so far, or until the job ends."""
    client = connect(address, insecure=insecure)
    if follow:
        follow_job(client, job, address, insecure=insecure)
    typer.echo(client.logs(job), nl=False)


@app.command(
    cls=Command,
    help="Stop a job; its committed results stay.\n\n"
    "The run gets SIGTERM. `raygenome submit --resume` continues it.\n\n"
    "Example: raygenome jobs stop raygenome-score-1a2b3c4d",
)
def stop(
    job: Job,
    address: Dashboard = None,
    wait: Annotated[bool, typer.Option(help="Wait until the job has ended.")] = True,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Stop a job and print the command that resumes its run."""
    client = connect(address, insecure=insecure)

    from raygenome.submission.status import resume_line, state_of

    running = client.stop(job)
    state = state_of(client.wait(job) if wait else client.job(job))
    again = resume_line(state, address, insecure=insecure)
    if as_json:
        typer.echo(json.dumps({**_row(state), "resume": again}, indent=1))
        return
    message = _ended(state) if wait or not running else "stopping"
    typer.echo(f"{job}: {'' if running else 'had already ended: '}{message}")
    if again and state.state != "succeeded":
        typer.echo(f"its committed results stay; continue with\n{again}")


def _row(state: "JobState") -> dict[str, object]:
    names = ("id", "state", "command", "out", "started", "ended", "exit_code")
    return {name: getattr(state, name) for name in names}


def _ended(state: "JobState") -> str:
    """Return the state, with the exit code where it is not 0."""
    return f"{state.state} ({state.exit_code})" if state.exit_code else state.state


def _when(seconds: float | None) -> str:
    """Return a time in the local time zone."""
    if seconds is None:
        return "not yet"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
