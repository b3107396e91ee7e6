"""The kill campaign: all four kinds of victim are killed, and no result differs."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos import kill_campaign

#: `make chaos` sets a number of kills; without it, a sample of each kind of victim.
ASKED = int(os.environ.get("RAYGENOME_KILLS", "0"))
SAMPLE = ["driver"] + ["worker"] * 3 + ["raylet", "gcs"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(24 * 3600 if ASKED else 900)
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    shares = kill_campaign.SHARES
    drawn = random.Random(seed).choices(list(shares), weights=list(shares.values()), k=ASKED)
    chosen = drawn or SAMPLE
    campaign = kill_campaign.kill_again_and_again(
        tmp_path, chosen, seed=seed, at_once=2, early=0.0, each=(5, 7) if ASKED else (3, 3)
    )
    assert not campaign.wrong, kill_campaign.table(campaign)
    assert Counter(kill.victim for kill in campaign.kills) == Counter(chosen)
    print(kill_campaign.table(campaign))


def test_a_run_that_differs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    part = tmp_path / "scores" / "part.parquet"
    part.write_text("one")
    (tmp_path / "run.json").write_text('{"counts": {"read": 1}}')
    assert kill_campaign.compare(tmp_path, {}) == ["there is no _SUCCESS"]
    (tmp_path / "_SUCCESS").write_text("")
    expected = kill_campaign.digests(tmp_path)
    assert kill_campaign.compare(tmp_path, expected) == []
    part.write_text("two")
    (tmp_path / "scores" / "stray.parquet").write_text("")
    assert kill_campaign.compare(tmp_path, expected) == [
        "scores/part.parquet differs",
        "scores/stray.parquet differs",
    ]
