"""Scoring shards on Ray actors.

`pool` runs the shards, `ledger` records which shard is where, `workers` holds the actors, `actor`
is the code inside one, `resources` says what an actor asks of Ray, and `metrics` feeds dashboards.
"""

from raygenome.pool.options import PoolOptions
from raygenome.pool.pool import ShardFailure, run_shards
from raygenome.pool.resources import WorkerFacts, look_at_worker

__all__ = ["PoolOptions", "ShardFailure", "WorkerFacts", "look_at_worker", "run_shards"]
