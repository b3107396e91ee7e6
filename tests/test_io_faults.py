"""Each write, flush, rename, open or removal of a run fails once; see `io_faults`."""

import os
import sys
from pathlib import Path

import pytest
from io_faults import GROWING, compiler, run_loop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc are Linux's"),
    pytest.mark.skipif(compiler() is None, reason="io_faults.c needs a C compiler: cc or gcc"),
]

EVERYTHING = os.environ.get("RAYGENOME_IO_FAULTS") == "all"


@pytest.mark.timeout(24 * 3600 if EVERYTHING else 600)
def test_whatever_fails_nothing_wrong_is_committed_and_the_run_goes_on(tmp_path: Path) -> None:
    found = run_loop(tmp_path, everything=EVERYTHING)
    print(found)
    assert not found.wrong, "\n\n".join(found.wrong)
    assert set(found.codes) <= {"0", "73", "74"}
    assert found.codes["73"]
    assert found.codes["74"] > found.codes["0"]
    fresh = found.operations["fresh"]
    assert found.cases > sum(fresh[kind] for kind in (*GROWING, "rename", "remove", "open"))
    # What C++ writes fails as well: Arrow's file of the plan, pyarrow's Parquet, DuckDB's.
    for name in ("alleles.arrow", "skipped.draft", "part-00000.parquet", "variants.parquet"):
        assert any(hit.endswith(name) for hit in found.hits), name
    assert any(hit.startswith("write variants.parquet") for hit in found.hits)
