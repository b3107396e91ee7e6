"""Ranking: the alleles of a run, in one order over the genome and in one for each target.

It reads what each shard left for it, some twenty bytes an allele, and not the effects; `summaries`
and `tops` say how, in bounded memory whatever the number of alleles. Ties go to the allele that the
plan has first: contig order, position, REF, ALT, record, allele.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, BinaryIO

from raygenome.errors import StorageError
from raygenome.genome.targets import Target
from raygenome.ranking.per_target import merge_tops, rank_tops
from raygenome.ranking.variants import ahead, rank_summaries
from raygenome.results.run_dir import RANKED_TARGETS, RANKED_VARIANTS, RunDir, Shard

#: Threads that read the shards' lists: an object store answers slowly, and several at a time.
_READERS = 16


def rank_run(
    run: RunDir,
    shards: Sequence[Shard],
    summaries: Mapping[int, str],
    tops: Sequence[str],
    *,
    targets: Sequence[Target],
    top_n: int,
) -> dict[str, dict[str, Any]]:
    """Publish `ranked/variants.parquet` and `ranked/targets.parquet` of a run that is all scored.

    Returns the {bytes, sha256} of each of the two, by name.

    Args:
        run: the run.
        shards: of the plan.
        summaries: the name of each shard's summary, by the shard's index.
        tops: the names of the shards' lists of strongest effects.
        targets: of the model.
        top_n: how many alleles are ranked for each target.

    Raises:
        StorageError: there is no room for what sorting needs, or the disk failed.
    """
    store = run.store

    def summary_of(shard: Shard) -> BinaryIO:
        return BytesIO(store.read(summaries[shard.index]))

    try:
        temporary = store.temporary_file(RANKED_VARIANTS)
        scratch = store.temporary_file("sorting")
        rank_summaries(shards, summary_of, targets, temporary, scratch)
        variants = store.publish(temporary, RANKED_VARIANTS)
        with ThreadPoolExecutor(_READERS) as pool:
            read = ahead(pool, store.read, tops, _READERS)
            keys = merge_tops(read, len(targets), top_n)
        temporary = store.temporary_file(RANKED_TARGETS)
        rank_tops(keys, shards, summary_of, temporary)
        strongest = store.publish(temporary, RANKED_TARGETS)
    except OSError as error:
        raise StorageError(
            f"ranking {run.place} failed: {error}; what is committed stays: "
            "mend the cause and run again with --resume"
        ) from error
    return {RANKED_VARIANTS: variants, RANKED_TARGETS: strongest}
