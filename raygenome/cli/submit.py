"""`raygenome submit`: a command as a job on a Ray cluster."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raygenome.cli.options import AsJson, Command, Dashboard, Insecure, Resume
from raygenome.cli.signals import Terminated
from raygenome.errors import RaygenomeError

if TYPE_CHECKING:
    from raygenome.submission.client import RayJobsClient
    from raygenome.submission.command import Command as Submitted

_HELP = """Run `score` or `train` as a job on a Ray cluster.

\b
Example: raygenome submit --address http://head:8265 --follow -- \\
    score /data/v.vcf.gz --model deepsea --fasta /data/hg19.fa --out /data/out

Options of submit come before --, the command comes after it. The printed id is for `raygenome
jobs`. The job runs the raygenome that is installed on the cluster, and finds models by name there.

Large files are not uploaded: VCF, FASTA, model directory, --data and --out must exist at the same
path on the cluster. Those of `score` may be s3:// or gs:// URLs; `train` takes paths only. The
YAML file of `train` and the BED files of `score -R` are sent with the job (up to 10 MB each).

The cluster's token is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, with
RAY_AUTH_MODE=token.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    settings = {"allow_interspersed_args": False}  # the first word ends the options of submit
    app.command(cls=Command, help=_HELP, context_settings=settings)(submit)


def submit(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="score or train, with its options.")
    ],
    address: Dashboard = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Print the log until the job ends; exit with its code."),
    ] = False,
    resume: Resume = False,
    job: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Id of the job. [default: a new one]")
    ] = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Check the command and the cluster, send the job, and with --follow wait for it."""
    command = read_words(context, words, resume=resume, insecure=insecure)

    from raygenome.submission.client import check_id, new_id

    job = check_id(job) if job is not None else new_id(command)
    client = connect(address, insecure=insecure)
    client.submit_command(command, job)
    typer.echo(json.dumps({"id": job, "address": client.url}) if as_json else job)
    if follow:
        follow_job(client, job, address, insecure=insecure)


def read_words(
    context: typer.Context, words: list[str], *, resume: bool = False, insecure: bool = False
) -> "Submitted":
    """Return the command after --, as its own parser reads it, so that its errors are the same.

    Raises:
        TyperException: the words do not fit the command.
        UsageError: the command cannot run on a cluster; see also `command.prepare`.
    """
    from raygenome.submission import command as commands

    name, *rest = words
    commands.require_job_command(name)
    root = context.find_root()
    inner: Any = root.command
    parsed = inner.commands[name].make_context(name, rest, parent=root)
    given = [
        found
        for parameter in parsed.command.params
        if typed(parsed, parameter.name)
        and (found := commands.argument(*written(parameter), parsed.params[parameter.name]))
    ]
    if name == "score" and not parsed.params["out"] and not parsed.params["dry_run"]:
        given += default_out(parsed.params)
    asked = {"resume": resume, "insecure": insecure}  # the job joins the same cluster
    switches = [switch for switch in asked if asked[switch] and switch in parsed.params]
    return commands.prepare(commands.Command(name, tuple(given)), switches=switches)


def typed(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given on the command line or by its environment variable."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def written(parameter: Any) -> tuple[str, str]:
    """Return a parameter's name and its long flag; the flag of an argument is ""."""
    if parameter.param_type_name == "argument":
        return parameter.name, ""
    return parameter.name, max(parameter.opts, key=len)


def default_out(params: dict[str, Any]) -> list[Any]:
    """Return the default --out of `score`."""
    from raygenome.cli import score
    from raygenome.submission import command as commands

    if params["vcf"] == "-":
        return []  # `prepare` refuses standard input
    return [commands.argument("out", "--out", score.default_out(params["vcf"], params["model"]))]


def connect(address: str | None, *, insecure: bool) -> "RayJobsClient":
    """Return a client of the cluster at `address`, after checking that it is protected."""
    from raygenome.cluster.address import DASHBOARD, find_dashboard
    from raygenome.submission.client import RayJobsClient

    return RayJobsClient(find_dashboard(address) or DASHBOARD, insecure=insecure)


class LeftAlone(RaygenomeError):  # noqa: N818 - an outcome, not an error
    """A signal ended the following of a log; the job continues."""

    def __init__(self, job: str, address: str | None, exit_code: int, *, insecure: bool) -> None:
        where = f" --address {shlex.quote(address)}" if address else ""
        where += " --insecure" if insecure else ""
        super().__init__(
            "the job continues",
            f"follow it again with `raygenome jobs logs {job} --follow{where}`, "
            f"stop it with `raygenome jobs stop {job}{where}`",
        )
        self.exit_code = exit_code


def follow_job(client: "RayJobsClient", job: str, address: str | None, *, insecure: bool) -> None:
    """Print a job's log until it ends, and exit with the job's code.

    Raises:
        LeftAlone: on Ctrl-C or SIGTERM; the job itself continues.
    """
    from raygenome.submission.status import exit_code

    try:
        ended = client.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        raise LeftAlone(job, address, 130, insecure=insecure) from None
    except Terminated:
        raise LeftAlone(job, address, 143, insecure=insecure) from None
    raise typer.Exit(exit_code(ended))
