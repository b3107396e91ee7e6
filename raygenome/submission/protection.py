"""Whether a cluster may be sent a job; checked before anything is sent."""

import ssl
from urllib.error import URLError
from urllib.parse import urlsplit

from raygenome.cluster import auth
from raygenome.errors import UsageError


def on_this_machine(url: str) -> bool:
    """Return whether a URL is on the loopback interface; it may be the end of a tunnel."""
    return auth.is_loopback(urlsplit(url).hostname or "")


def check_dashboard(url: str, *, insecure: bool, timeout_s: float = 5.0) -> None:
    """Check that a Ray dashboard answers and requires a token, and that there is a token for it.

    Args:
        url: of the dashboard.
        insecure: accept a dashboard that requires no token. This is needed on the loopback
            interface too: the head behind it listens on the network, so that the job itself would
            refuse to join it.
        timeout_s: longest time to wait for an answer.

    Raises:
        UsageError: one of these is not so.
    """
    try:
        requires_token = auth.refuses(url, timeout_s)
    except auth.NotRay as error:
        raise UsageError(
            f"what answers at {url} is not a Ray dashboard ({error})",
            "give the URL of the dashboard (port 8265 by default), not the head's own port (6379)",
        ) from None
    except OSError as error:
        raise _no_answer(url, error) from None
    if requires_token and not auth.has_token():
        raise UsageError(f"the Ray cluster at {url} requires a token (401)", auth.SET_TOKEN)
    if not requires_token and not insecure:
        raise UsageError(
            f"the Ray cluster at {url} requires no token, so that anyone who can reach its head "
            "can run programs on it",
            "start it with RAY_AUTH_MODE=token, or accept this with --insecure, as in `raygenome "
            "submit --insecure -- ...`",
        )


def _no_answer(url: str, error: OSError) -> UsageError:
    """Return the error that says why there was no answer, and what to do."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UsageError(
            f"the certificate of {url} is not trusted ({cause.verify_message})",
            "give the file of its certificate authority in SSL_CERT_FILE and REQUESTS_CA_BUNDLE",
        )
    if isinstance(cause, ssl.SSLError):
        return UsageError(
            f"the server at {url} does not speak TLS ({cause.reason or cause})",
            "try http:// instead of https://",
        )
    return UsageError(
        f"no Ray dashboard answers at {url} ({cause})",
        "start a cluster with `ray start --head`, or give the URL of one with --address",
    )
