"""What a run tells Ray's metrics, for dashboards; the names are for others to rely on.

Ray exports them at each node's metrics port with `ray_` before the name, and with `_total` after
that of a counter. A run never fails for them, and recording one costs microseconds.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

#: Upper bounds of the histogram of seconds a shard.
SHARD_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600]


class WorkerMetrics:
    """What a worker tells after each shard.

    `raygenome_busy_share` is the share of the time since the shard before that was spent in the
    engine, that is on its GPU where it has one: 0 to 1.

    Args:
        tags: of every metric, such as the model.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._told_at = time.monotonic()
        self._variants: Any = None
        with suppress(Exception):
            self._variants = _metric(Counter, "variants_scored", "Alleles scored.", tags)
            self._seconds = _metric(
                Histogram, "shard_seconds", "Seconds a shard.", tags, boundaries=SHARD_SECONDS
            )
            self._busy = _metric(
                Gauge, "busy_share", "Share of a worker's time in the engine, 0 to 1.", tags
            )

    def note(self, receipt: Mapping[str, Any]) -> None:
        """Tell of a shard by its receipt."""
        now = time.monotonic()
        since, self._told_at = max(now - self._told_at, 1e-9), now
        if self._variants is None:
            return
        with suppress(Exception):
            if receipt.get("rows"):
                self._variants.inc(receipt["rows"])
            if "seconds" in receipt:
                self._seconds.observe(receipt["seconds"])
            if "engine_seconds" in receipt:
                self._busy.set(min(receipt["engine_seconds"] / since, 1.0))


class RunMetrics:
    """What the driver tells of its workers and of shards that failed.

    Args:
        tags: of every metric, such as the model.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._workers_told = -1
        self._retries: Any = None
        with suppress(Exception):
            self._failed = _metric(Counter, "shards_failed", "Shards that were given up.", tags)
            self._workers = _metric(Gauge, "workers", "Workers that are ready.", tags)
            self._retries = _metric(Counter, "shard_retries", "Shards that are to run again.", tags)

    def retries(self, count: int) -> None:
        """Tell of shards that will be run again."""
        if self._retries is not None and count:
            with suppress(Exception):
                self._retries.inc(count)

    def failed(self) -> None:
        """Tell of a shard that was given up."""
        if self._retries is not None:
            with suppress(Exception):
                self._failed.inc()

    def workers(self, count: int) -> None:
        """Tell how many workers are ready, where that has changed."""
        if self._retries is not None and count != self._workers_told:
            self._workers_told = count
            with suppress(Exception):
                self._workers.set(count)


def _metric(kind: Any, name: str, said: str, tags: Mapping[str, str], **more: Any) -> Any:
    """Return a metric of ours that has `tags` whenever it is recorded."""
    metric = kind(f"raygenome_{name}", description=said, tag_keys=tuple(tags), **more)
    return metric.set_default_tags(dict(tags))
