"""Scoring shards on Ray actors.

`pool` runs the shards, `ledger` records which shard is where, `workers` holds the actors, `actor`
is the code inside one, `resources` holds the resources of an actor, and `metrics` feeds dashboards.
"""

from raygenome.pool.pool import PoolOptions, ShardFailure, run_shards
from raygenome.pool.resources import probe_worker

__all__ = ["PoolOptions", "ShardFailure", "probe_worker", "run_shards"]
