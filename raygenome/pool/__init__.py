"""Scoring shards on Ray actors; the only folder that imports ray.

`supervision` runs the pool, `ledger` keeps its books, `crew` its actors, of which `actor` is the
far end and `placement` says where; `pulse` tells when the cluster is gone, `metrics` tells
dashboards. `cluster` is where Ray comes from, `private` or found by `heads`, and `sigterm` keeps
it from swallowing SIGTERM.
"""

from raygenome.pool.cluster import Cluster, connected, find_address, joined
from raygenome.pool.options import PoolOptions
from raygenome.pool.placement import WorkerFacts, look_at_worker
from raygenome.pool.supervision import ShardFailure, run_shards

__all__ = [
    "Cluster",
    "PoolOptions",
    "ShardFailure",
    "WorkerFacts",
    "connected",
    "find_address",
    "joined",
    "look_at_worker",
    "run_shards",
]
