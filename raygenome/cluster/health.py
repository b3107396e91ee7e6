"""Whether the cluster that a run uses is still there.

Ray does not report this to its driver. If the head is gone for good, calls to Ray block in C++
until, after a minute, Ray ends the whole process with exit code 1. If the driver's own raylet is
gone, the driver waits forever for workers that never come. So a thread sends both a heartbeat
request every other second, and the run ends before Ray would end it. A head that comes back in
time, as one with its own storage can, does no harm: workers and driver communicate without it.
"""

import threading
import time
from types import TracebackType
from typing import Self

import ray

from raygenome.cluster.probe import is_reachable
from raygenome.errors import PartialFailure

#: Seconds of silence after which a cluster counts as lost. Ray ends the process after 60, and
#: disconnecting from a head that is gone takes 11 to 20 of these.
PATIENCE_S = 25.0

#: The same for a private Ray, which nobody would restart. It also counts as lost when its port is
#: found closed in two heartbeats.
PRIVATE_PATIENCE_S = 20.0

#: Seconds between two heartbeats, and how long one may take.
_HEARTBEAT_S = 2.0


class ClusterHealth:
    """Sends heartbeats to the cluster within a block, and says when it is lost.

    Args:
        private: whether the cluster is a private Ray of this process.
        patience_s: seconds of silence after which it counts as lost, if not the default.
    """

    def __init__(self, *, private: bool, patience_s: float | None = None) -> None:
        self._private = private
        default = PRIVATE_PATIENCE_S if private else PATIENCE_S
        self._patience_s = default if patience_s is None else patience_s
        self._silent_s: dict[str, float] = dict.fromkeys(_addresses(), 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    @property
    def is_healthy(self) -> bool:
        """Whether all answered the last heartbeat; if not, a call to the head may block forever."""
        return not any(self._silent_s.values())

    def answers_now(self) -> bool:
        """Return whether all answer at this moment; to be asked before a call to the head."""
        return self.is_healthy and all(_answers(address) for address in self._silent_s)

    def check(self) -> None:
        """Raise an error if the cluster is lost.

        Raises:
            PartialFailure: it is lost.
        """
        for address, silent_s in self._silent_s.items():
            if silent_s >= self._patience_s:
                raise PartialFailure(
                    f"the Ray cluster was lost: nothing answers at {address} any more; "
                    "committed results are kept",
                    "run again with --resume",
                )

    def _watch(self) -> None:
        """Send heartbeats until the block ends.

        Time in which this process itself was stopped does not count as silence.
        """
        last = time.monotonic()
        while not self._over.wait(_HEARTBEAT_S):
            now = time.monotonic()
            passed, last = min(now - last, 2 * _HEARTBEAT_S), now
            for address, silent_s in self._silent_s.items():
                self._silent_s[address] = self._heartbeat(address, silent_s, passed)

    def _heartbeat(self, address: str, silent_s: float, passed: float) -> float:
        """Send one heartbeat and return for how many seconds `address` has been silent."""
        try:
            answers = is_reachable(address, _HEARTBEAT_S)
        except ConnectionRefusedError:
            return silent_s + (self._patience_s / 2 if self._private else passed)
        except OSError:
            answers = False
        return 0.0 if answers else silent_s + passed


def _answers(address: str) -> bool:
    try:
        return is_reachable(address, _HEARTBEAT_S)
    except OSError:
        return False


def _addresses() -> list[str]:
    """Return HOST:PORT of the head and of this process's raylet."""
    context = ray.get_runtime_context()
    here = context.get_node_id()
    raylets = [
        f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        for node in ray.nodes()
        if node["NodeID"] == here
    ]
    return [context.gcs_address, *raylets]
