"""Whether the cluster that a run is on is still there.

Ray does not tell its driver. Where the head is gone for good, calls of Ray's wait in C++ until,
after a minute, Ray ends the whole process with exit code 1; where the driver's own raylet is gone,
workers are waited for and never come. So both are greeted every other second by a thread, and
the run is given up before Ray does it. A head that comes back in time, as one with a store of
its own can, is as if nothing had been: workers and driver talk without it.
"""

import threading
import time
from types import TracebackType
from typing import Self

import ray

from raygenome.cluster.probe import greets
from raygenome.errors import PartialFailure

#: Seconds of silence after which a cluster that others keep is lost. Ray's own limit is 60, and
#: what follows must be over by then: disconnecting from a head that is gone takes 11 to 20.
PATIENCE_S = 25.0

#: The same for a private Ray, which nobody would start again; it is lost as soon as its port is
#: found closed in two looks.
PRIVATE_PATIENCE_S = 20.0

#: Seconds between two greetings, and how long one may take.
_LOOK_S = 2.0


class Pulse:
    """Greets the cluster within a block, and says when it is lost.

    Args:
        private: whether the cluster is a private Ray of this process.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._patience_s = PRIVATE_PATIENCE_S if private else PATIENCE_S
        self._silent_s: dict[str, float] = dict.fromkeys(_addresses(), 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._greet, name="pulse", daemon=True)

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
    def well(self) -> bool:
        """Whether all answered when last greeted: else what asks the head may wait for ever."""
        return not any(self._silent_s.values())

    def answers(self) -> bool:
        """Return whether all answer now: for what is about to ask the head and would hang on it."""
        return self.well and all(_answers(place) for place in self._silent_s)

    def check(self) -> None:
        """Look whether the cluster is lost.

        Raises:
            PartialFailure: it is.
        """
        for place, silent_s in self._silent_s.items():
            if silent_s >= self._patience_s:
                raise PartialFailure(
                    f"the Ray cluster was lost: nothing answers at {place} any more; "
                    "what is committed stays: run again with --resume"
                )

    def _greet(self) -> None:
        """Greet all until the block ends; time in which this process was stopped does not count."""
        looked_at = time.monotonic()
        while not self._over.wait(_LOOK_S):
            now = time.monotonic()
            passed, looked_at = min(now - looked_at, 2 * _LOOK_S), now
            for place, silent_s in self._silent_s.items():
                self._silent_s[place] = self._listen(place, silent_s, passed)

    def _listen(self, place: str, silent_s: float, passed: float) -> float:
        """Return for how long `place` has been silent, after greeting it."""
        try:
            answers = greets(place, _LOOK_S)
        except ConnectionRefusedError:
            return silent_s + (self._patience_s / 2 if self._private else passed)
        except OSError:
            answers = False
        return 0.0 if answers else silent_s + passed


def _answers(place: str) -> bool:
    try:
        return greets(place, _LOOK_S)
    except OSError:
        return False


def _addresses() -> list[str]:
    """Return where the head and the raylet of this process are, HOST:PORT."""
    context = ray.get_runtime_context()
    here = context.get_node_id()
    raylets = [
        f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        for node in ray.nodes()
        if node["NodeID"] == here
    ]
    return [context.gcs_address, *raylets]
