"""All checks, one after another."""

from collections.abc import Callable, Iterator
from functools import partial

from raygenome.doctor.clusters import check_clusters, check_token
from raygenome.doctor.finding import Finding
from raygenome.doctor.genome import check_fasta
from raygenome.doctor.gpus import check_gpus
from raygenome.doctor.models import check_model
from raygenome.doctor.room import check_room
from raygenome.doctor.versions import check_versions

#: The model that every installation has.
DEFAULT_MODEL = "demo"


def examine(
    *,
    address: str | None = None,
    fasta: str | None = None,
    model: str | None = None,
    out: str | None = None,
) -> Iterator[Finding]:
    """Yield the findings of each check as soon as it is done.

    Args:
        address: of a Ray cluster; None takes it from the environment.
        fasta: path or URL of a genome to check; None checks none.
        model: name or directory; None checks the model that comes with raygenome.
        out: folder of a future run; None is the working directory.
    """
    checks: list[Callable[[], list[Finding]]] = [
        check_versions,
        check_token,
        partial(check_clusters, address),
        check_gpus,
        partial(check_room, out),
        partial(check_fasta, fasta) if fasta else _no_fasta,
        partial(check_model, model or DEFAULT_MODEL),
    ]
    for check in checks:
        yield from check()


def _no_fasta() -> list[Finding]:
    return [Finding("FASTA", "skipped", "none given; --fasta FILE checks one")]
