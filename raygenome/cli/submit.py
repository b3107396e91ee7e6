"""`raygenome submit`: a command as a job on a Ray cluster."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raygenome.errors import RaygenomeError

if TYPE_CHECKING:
    from raygenome.submission.client import Head
    from raygenome.submission.command import Command

_HELP = """Run `score` or `train` as a job on a Ray cluster, through Ray Jobs.

Example: raygenome submit --address http://head:8265 --follow -- score /data/v.vcf.gz
--model deepsea --fasta /data/hg38.fa --out /data/scores

Options of submit stand before --, the command behind it. It prints the id of the job, for
`raygenome jobs`. What runs is the raygenome that is installed on the cluster; a model's name is one
of its registry there.

Nothing large is uploaded: VCF, FASTA, model directory, --data and --out have to be at the same path
on the cluster. Those of `score` may be s3:// or gs:// URLs; `train` takes paths only. The recipe of
`train` and the BED files of `score -R` are read here and travel with the job (up to 10 MB each).

The token of the cluster is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token,
with RAY_AUTH_MODE=token.
"""

Address = Annotated[
    str | None,
    typer.Option(
        help="URL of the cluster's dashboard. [default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, or "
        "http://127.0.0.1:8265]",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Accept a cluster that asks for no token.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    settings = {"allow_interspersed_args": False}  # the first word ends the options of submit
    app.command(help=_HELP, context_settings=settings)(submit)


def submit(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="score or train, and its options.")
    ],
    address: Address = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Print the job's log as it comes, and exit as the job does."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out that was interrupted.")
    ] = False,
    job: Annotated[
        str | None, typer.Option("--id", help="Id of the job. [default: a new one]")
    ] = None,
    insecure: Insecure = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print id and address as JSON.")] = False,
) -> None:
    """Check the command and the cluster, send the job, and perhaps wait for it."""
    command = read_words(context, words, resume=resume, insecure=insecure)

    from raygenome.submission.address import find_url
    from raygenome.submission.send import check_id, new_id, send

    job = check_id(job) if job is not None else new_id(command)
    url = find_url(address)
    head = connect(url, insecure=insecure)
    send(head, command, job)
    typer.echo(json.dumps({"id": job, "address": url}) if as_json else job)
    if follow:
        follow_job(head, job, address, insecure=insecure)


def read_words(
    context: typer.Context, words: list[str], *, resume: bool = False, insecure: bool = False
) -> "Command":
    """Return the command that the words behind -- are, after the checks that it makes itself.

    The command's own parser reads them, so that a slip is told as the command itself would.

    Raises:
        TyperException: they are not what the command takes.
        UsageError: it is no command for a cluster; see also `command.settle`.
    """
    from raygenome.submission import command as commands

    name, *rest = words
    commands.refuse_other(name)
    root = context.find_root()
    inner: Any = root.command
    parsed = inner.commands[name].make_context(name, rest, parent=root)
    given = [
        found
        for parameter in parsed.command.params
        if typed(parsed, parameter.name)
        and (found := commands.given(*written(parameter), parsed.params[parameter.name]))
    ]
    if name == "score" and not parsed.params["out"] and not parsed.params["dry_run"]:
        given += default_out(parsed.params)
    asked = {"resume": resume, "insecure": insecure}  # the job joins the same cluster
    switches = [switch for switch in asked if asked[switch] and switch in parsed.params]
    return commands.settle(commands.Command(name, tuple(given)), switches=switches)


def typed(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given, on the command line or by a variable of its own."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def written(parameter: Any) -> tuple[str, str]:
    """Return a parameter's name and the long form of its flag; an argument has "" for one."""
    if parameter.param_type_name == "argument":
        return parameter.name, ""
    return parameter.name, max(parameter.opts, key=len)


def default_out(params: dict[str, Any]) -> list[Any]:
    """Return the --out that `score` would choose, which has to be a place on the cluster."""
    from raygenome.cli import score
    from raygenome.submission import command as commands

    if params["vcf"] == "-":
        return []  # refused as what it is in a moment
    return [commands.given("out", "--out", score.default_out(params["vcf"], params["model"]))]


def connect(url: str, *, insecure: bool) -> "Head":
    """Return the checked head of a cluster."""
    from raygenome.submission.client import Head

    return Head(url, insecure=insecure)


class LeftAlone(RaygenomeError):  # noqa: N818 - named as what has happened
    """Following was ended by a signal; the job goes on."""

    def __init__(self, job: str, address: str | None, exit_code: int, *, insecure: bool) -> None:
        where = f" --address {shlex.quote(address)}" if address else ""
        where += " --insecure" if insecure else ""
        super().__init__(
            f"the job goes on; look again with `raygenome jobs logs {job} --follow{where}`, "
            f"end it with `raygenome jobs stop {job}{where}`"
        )
        self.exit_code = exit_code


def follow_job(head: "Head", job: str, address: str | None, *, insecure: bool) -> None:
    """Print a job's log as it comes, and exit as the job does.

    Raises:
        LeftAlone: by Ctrl-C or SIGTERM, which end the following and not the job.
    """
    from raygenome.cli import Terminated
    from raygenome.submission.status import exit_code

    try:
        ended = head.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        raise LeftAlone(job, address, 130, insecure=insecure) from None
    except Terminated:
        raise LeftAlone(job, address, 143, insecure=insecure) from None
    raise typer.Exit(exit_code(ended))
