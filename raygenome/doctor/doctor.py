"""The whole examination: every check, one after another."""

from collections.abc import Callable, Iterator
from functools import partial

from raygenome.doctor.clusters import check_clusters, check_token
from raygenome.doctor.finding import Finding
from raygenome.doctor.genome import check_fasta
from raygenome.doctor.gpus import check_gpus
from raygenome.doctor.models import check_model
from raygenome.doctor.room import check_room
from raygenome.doctor.versions import check_versions

#: The model that is there on every machine.
DEFAULT_MODEL = "demo"


def examine(
    *,
    address: str | None = None,
    fasta: str | None = None,
    model: str | None = None,
    out: str | None = None,
) -> Iterator[Finding]:
    """Yield what each check finds, as it is found.

    Args:
        address: of a Ray cluster; where None, what the environment names.
        fasta: a genome to look at, path or URL; none is where None.
        model: name or directory; the one that comes with the program where None.
        out: where a run would go; the working directory where None.
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
    return [Finding("FASTA", "skipped", "none was given; --fasta FA looks at one")]
