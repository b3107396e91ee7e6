"""Scoring shards on Ray actors; the only folder that imports ray.

`supervision` runs the pool, `ledger` keeps its books, `crew` its actors, of which `actor` is the
far end; `cluster` is where Ray comes from, and `sigterm` keeps it from swallowing SIGTERM.
"""

from raygenome.pool.cluster import connected
from raygenome.pool.supervision import PoolOptions, ShardFailure, run_shards

__all__ = ["PoolOptions", "ShardFailure", "connected", "run_shards"]
