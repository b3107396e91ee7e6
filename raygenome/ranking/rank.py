"""Ranking: the alleles of a run in one order over the genome, and in one order for each target.

Ranking reads what each shard left for it, some twenty bytes per allele, and not the effects. It
needs bounded memory, however many alleles there are; see `variants` and `per_target`. Of equal
scores, the allele that comes first in the plan ranks first: contig, position, REF, ALT, record,
allele.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, BinaryIO

from raygenome.errors import StorageError
from raygenome.genome.alleles import Shard
from raygenome.genome.targets import Target
from raygenome.ranking.external_sort import ahead
from raygenome.ranking.per_target import merge_top_effects, rank_targets
from raygenome.ranking.variants import rank_variants
from raygenome.results.run_dir import RANKED_TARGETS, RANKED_VARIANTS, RunDir

#: Threads that read the shards' top effects: an object store is slow for each, fast for several.
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
        tops: the names of the shards' files of top effects.
        targets: of the model.
        top_n: how many alleles are ranked per target.

    Raises:
        StorageError: sorting needs more space than there is, or the disk failed.
    """
    store = run.store

    def summary_of(shard: Shard) -> BinaryIO:
        return BytesIO(store.read(summaries[shard.index]))

    try:
        temporary = store.temporary_file(RANKED_VARIANTS)
        rank_variants(shards, summary_of, targets, temporary, store.temporary_file("sorting"))
        variants = store.publish(temporary, RANKED_VARIANTS)
        with ThreadPoolExecutor(_READERS) as pool:
            files = ahead(pool, store.read, tops, _READERS)
            keys = merge_top_effects(files, len(targets), top_n)
        temporary = store.temporary_file(RANKED_TARGETS)
        rank_targets(keys, shards, summary_of, temporary)
        strongest = store.publish(temporary, RANKED_TARGETS)
    except OSError as error:
        raise StorageError(
            f"ranking {run.place} failed: {error}; committed shards are kept",
            "fix the cause and run again with --resume",
        ) from error
    return {RANKED_VARIANTS: variants, RANKED_TARGETS: strongest}
