"""The cluster that a command uses: from the command line, or else from the environment.

A cluster has two addresses. Drivers join its head at HOST:6379 (Ray's GCS); jobs are sent to its
dashboard at http://HOST:8265. RAY_ADDRESS may hold either.
"""

import os
from urllib.parse import urlsplit

from raygenome.errors import UsageError

#: Ray's default port of a head, and default URL of its dashboard.
HEAD_PORT = 6379
DASHBOARD_PORT = 8265
DASHBOARD = f"http://127.0.0.1:{DASHBOARD_PORT}"

#: Where Ray's own command line looks for a dashboard, in this order.
DASHBOARD_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def find_address(address: str | None) -> str | None:
    """Return the cluster that a run would join: `address`, or else RAY_ADDRESS.

    None means a private Ray, and so does "local".
    """
    found = address or os.environ.get("RAY_ADDRESS") or "local"
    return None if found == "local" else found


def find_dashboard(address: str | None) -> str | None:
    """Return the URL of the dashboard that is named; None if nothing names one.

    Args:
        address: as typed: the URL of a dashboard, HOST:PORT of one, or HOST:6379 of its head.
            None takes it from the variables.

    Raises:
        UsageError: the address cannot be the URL of a dashboard.
    """
    source = "--address"
    if not address:
        source = next((name for name in DASHBOARD_VARIABLES if os.environ.get(name)), "")
        address = os.environ.get(source, "")
        if address in ("", "auto", "local"):  # for `score` and `train` these mean this machine
            return None
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
        if parts.port == HEAD_PORT:  # the port of the head does not speak HTTP
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return f"http://{host}:{DASHBOARD_PORT}"
    except ValueError:
        raise UsageError(
            f"{source} is {address!r}, which is not the address of a Ray dashboard",
            f"give its URL, such as {DASHBOARD}",
        ) from None
    return url.rstrip("/")
