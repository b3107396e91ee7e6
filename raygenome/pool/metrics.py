"""The metrics that a run gives to Ray for dashboards; others rely on their names.

Ray exports them at the metrics port of each node, with `ray_` before the name, and with `_total`
after the name of a counter. Recording one takes microseconds, and a run never fails because of it.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

#: Upper bounds of the histogram of seconds per shard.
SHARD_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600]


class WorkerMetrics:
    """What a worker records after each shard.

    `raygenome_busy_share`, 0 to 1, is the share of the time since the previous shard that the
    engine worked, on its GPU if it has one.

    Args:
        tags: of every metric, such as the model.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._recorded_at = time.monotonic()
        self._variants: Any = None
        with suppress(Exception):
            self._variants = _metric(Counter, "variants_scored", "Alleles scored.", tags)
            self._seconds = _metric(
                Histogram, "shard_seconds", "Seconds per shard.", tags, boundaries=SHARD_SECONDS
            )
            self._busy = _metric(
                Gauge, "busy_share", "Share of a worker's time in the engine, 0 to 1.", tags
            )

    def record(self, receipt: Mapping[str, Any]) -> None:
        """Record a shard by its receipt."""
        now = time.monotonic()
        since, self._recorded_at = max(now - self._recorded_at, 1e-9), now
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
    """What the driver records of its workers and of shards that failed.

    Args:
        tags: of every metric, such as the model.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._last_workers = -1
        self._retries: Any = None
        with suppress(Exception):
            self._failed = _metric(Counter, "shards_failed", "Shards that were given up.", tags)
            self._workers = _metric(Gauge, "workers", "Workers that are ready.", tags)
            self._retries = _metric(Counter, "shard_retries", "Shards that will run again.", tags)

    def record_retry(self) -> None:
        """Record a shard that will run again."""
        if self._retries is not None:
            with suppress(Exception):
                self._retries.inc()

    def record_failure(self) -> None:
        """Record a shard that was given up."""
        if self._retries is not None:
            with suppress(Exception):
                self._failed.inc()

    def record_workers(self, count: int) -> None:
        """Record how many workers are ready, if that has changed."""
        if self._retries is not None and count != self._last_workers:
            self._last_workers = count
            with suppress(Exception):
                self._workers.set(count)


def _metric(kind: Any, name: str, description: str, tags: Mapping[str, str], **more: Any) -> Any:
    """Return a metric of raygenome with `tags` as its default tags."""
    metric = kind(f"raygenome_{name}", description=description, tag_keys=tuple(tags), **more)
    return metric.set_default_tags(dict(tags))
