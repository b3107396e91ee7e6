"""`raygenome jobs`: list, status, logs, stop."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from raygenome.cli.submit import Address, Insecure, connect, follow_job

if TYPE_CHECKING:
    from raygenome.submission.client import Head
    from raygenome.submission.status import JobState

app = typer.Typer(
    help="Look after the jobs that `raygenome submit` has sent.\n\n"
    "Example: raygenome jobs status raygenome-score-1a2b3c4d",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Job = Annotated[str, typer.Argument(metavar="ID", help="What `raygenome submit` printed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    "list",
    help="List the jobs that raygenome has sent to a cluster, the newest first.\n\n"
    "Example: raygenome jobs list --address http://head:8265",
)
def list_(address: Address = None, insecure: Insecure = False, as_json: AsJson = False) -> None:
    """Print a row a job."""
    head = _head(address, insecure=insecure)

    from raygenome.submission.status import state_of

    states = [state_of(job) for job in head.jobs()]
    if as_json:
        rows = [_row(state) for state in states]
        typer.echo(json.dumps(rows, indent=1))
        return
    for state in states:
        typer.echo(f"{state.id}  {_ended(state):<14}  {_when(state.started)}  {state.command}")
    if not states:
        typer.echo(f"no job was sent to {head.url} by raygenome")


@app.command(
    help="Say how a job stands, and how far its run is.\n\n"
    "Example: raygenome jobs status raygenome-score-1a2b3c4d"
)
def status(
    job: Job, address: Address = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Print what Ray knows of the job, and what its run says of itself."""
    head = _head(address, insecure=insecure)

    from raygenome.submission.status import describe, look

    state = look(head, job)
    if as_json:
        more = ("progress", "log_line", "why")
        told = {**_row(state), **{name: getattr(state, name) for name in more}}
        typer.echo(json.dumps(told, indent=1))
        return
    lines = [
        f"job       {state.id}",
        f"state     {_ended(state)}",
        f"command   {state.command}",
        f"started   {_when(state.started)}",
    ]
    if state.ended is not None:
        lines.append(f"ended     {_when(state.ended)}")
    lines += [f"progress  {line}" for line in describe(state)]
    if state.why:
        lines.append(f"why       {state.why}")
    typer.echo("\n".join(lines))


@app.command(
    help="Print the log of a job.\n\nExample: raygenome jobs logs raygenome-score-1a2b3c4d --follow"
)
def logs(
    job: Job,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as it comes, and exit as the job does.")
    ] = False,
    insecure: Insecure = False,
) -> None:
    """Print a job's log, all of it or as it comes."""
    head = _head(address, insecure=insecure)
    if follow:
        follow_job(head, job, address, insecure=insecure)
    typer.echo(head.logs(job), nl=False)


@app.command(
    help="Stop a job: its run ends as by SIGTERM, and what it has committed stays.\n\n"
    "Example: raygenome jobs stop raygenome-score-1a2b3c4d"
)
def stop(
    job: Job,
    address: Address = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Stop a job and say how its run goes on."""
    head = _head(address, insecure=insecure)

    from raygenome.submission.status import resume_line, state_of

    running = head.stop(job)
    state = state_of(head.wait(job) if wait else head.job(job))
    again = resume_line(state, address, insecure=insecure)
    if as_json:
        typer.echo(json.dumps({**_row(state), "resume": again}, indent=1))
        return
    told = _ended(state) if wait or not running else "told to stop"
    typer.echo(f"{job}: {'' if running else 'had ended before: '}{told}")
    if again and state.state != "succeeded":
        typer.echo(f"what it has committed stays; it goes on with\n{again}")


def _head(address: str | None, *, insecure: bool) -> "Head":
    from raygenome.submission.address import find_url

    return connect(find_url(address), insecure=insecure)


def _row(state: "JobState") -> dict[str, object]:
    names = ("id", "state", "command", "out", "started", "ended", "exit_code")
    return {name: getattr(state, name) for name in names}


def _ended(state: "JobState") -> str:
    """Return the state, with the exit code where that says more."""
    return f"{state.state} ({state.exit_code})" if state.exit_code else state.state


def _when(seconds: float | None) -> str:
    """Return a time as people here read it."""
    if seconds is None:
        return "not yet"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
