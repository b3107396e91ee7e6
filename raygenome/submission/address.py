"""Where the head of a cluster is, and whether it may be sent a job: told before anything is."""

import os
import ssl
from urllib.error import URLError
from urllib.parse import urlsplit

from raygenome.cluster import auth
from raygenome.errors import UsageError

#: Ray's own default of its dashboard.
DEFAULT = "http://127.0.0.1:8265"
#: Where Ray's own command line looks, in this order.
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def find_url(address: str | None) -> str:
    """Return the URL of the dashboard to talk to.

    Args:
        address: as typed: a URL, or HOST:PORT; where None the variables say it.

    Raises:
        UsageError: it is no URL of a dashboard.
    """
    source = "--address"
    if not address:
        source = next((name for name in VARIABLES if os.environ.get(name)), "")
        address = os.environ.get(source, DEFAULT)
        if address in ("auto", "local"):  # what `score` and `train` read there, of this machine
            address = DEFAULT
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(
            f"{source} is {address!r}, which is no address of a Ray dashboard; "
            f"give its URL, such as {DEFAULT}"
        )
    return url.rstrip("/")


def on_this_machine(url: str) -> bool:
    """Return whether a URL is of the loopback interface, be it the end of a tunnel."""
    return auth.is_loopback(urlsplit(url).hostname or "")


def check(url: str, *, insecure: bool, timeout_s: float = 5.0) -> None:
    """See that a Ray dashboard answers and is guarded, and that there is a token for it.

    Args:
        url: of the dashboard.
        insecure: accept one that asks for no token. A dashboard on the loopback interface needs
            it too: the head behind it listens on the network all the same, so that a job would
            refuse to join it.
        timeout_s: longest time to wait for an answer.

    Raises:
        UsageError: one of these is not so.
    """
    try:
        asks = auth.refuses(url, timeout_s)
    except auth.NotRay as error:
        raise UsageError(
            f"what answers at {url} is not a Ray dashboard ({error}); give the URL of the "
            "dashboard (port 8265 unless changed), not the head's own port (6379)"
        ) from None
    except OSError as error:
        raise UsageError(_silence(url, error)) from None
    if asks and not auth.has_token():
        raise UsageError(f"the Ray cluster at {url} asks for a token (401): {auth.SET_TOKEN}")
    if not asks and not insecure:
        raise UsageError(
            f"the Ray cluster at {url} asks for no token, so that whoever reaches its head can run "
            "programs on it; start it with RAY_AUTH_MODE=token, or accept that by --insecure, as "
            "in `raygenome submit --insecure -- ...`"
        )


def _silence(url: str, error: OSError) -> str:
    """Return why there was no answer, and what to do."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {url} is not trusted ({cause.verify_message}); name the file of "
            "its authority in SSL_CERT_FILE and REQUESTS_CA_BUNDLE"
        )
    if isinstance(cause, ssl.SSLError):
        return f"no TLS is spoken at {url} ({cause.reason or cause}); is it http:// there?"
    return (
        f"no Ray dashboard answers at {url} ({cause}); start a cluster with `ray start --head`, or "
        "give the URL of one with --address"
    )
