"""The files of a split, joined from those of its parts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygenome.datasets.manifest import SplitEntry
from raygenome.storage.files import publish
from raygenome.storage.folder import OutputFolder

#: Columns of a split's sites, see `packed.Split.sites`.
SITES_SCHEMA = pa.schema(
    [
        ("contig", pa.dictionary(pa.int32(), pa.string())),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("background", pa.bool_()),
    ]
)


def join(
    folder: OutputFolder, parts: Path, split: str, receipts: list[dict[str, Any]], targets: int
) -> SplitEntry:
    """Publish the files of one split in `folder`; return what the manifest says of it.

    Args:
        folder: the dataset's.
        parts: where the files of the parts are.
        split: its name.
        receipts: of all its parts, in order.
        targets: labels a window.
    """
    if not receipts:
        return SplitEntry(positives=[0] * targets)
    files = {}
    for kind in receipts[0]["files"]:
        final = folder.path / f"{split}.{kind}"
        sources = [parts / f"{split}-{receipt['part']:05d}.{kind}" for receipt in receipts]
        temporary = folder.temporary_file(final)
        if kind == "sites.parquet":
            _join_sites(sources, temporary)
        else:
            _append(sources, temporary)
        files[final.name] = publish(temporary, final)
    return SplitEntry(
        rows=sum(receipt["rows"] for receipt in receipts),
        background=sum(receipt["background"] for receipt in receipts),
        with_n=sum(receipt["with_n"] for receipt in receipts),
        positives=np.sum([receipt["positives"] for receipt in receipts], axis=0).tolist(),
        files=files,
    )


def _append(parts: Sequence[Path], joined: Path) -> None:
    with joined.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 22)


def _join_sites(parts: Sequence[Path], joined: Path) -> None:
    with pq.ParquetWriter(joined, SITES_SCHEMA, compression="zstd") as out:
        for part in parts:
            out.write_table(pq.read_table(part).cast(SITES_SCHEMA))
