"""A small kill campaign: all four victims, 25 kills, and the results do not differ."""

import time
from collections import Counter
from pathlib import Path

import pytest
from chaos import kill_campaign

VICTIMS = ["driver"] * 4 + ["worker"] * 17 + ["raylet"] * 2 + ["gcs"] * 2


@pytest.mark.ray
@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    campaign = kill_campaign.kill_again_and_again(
        tmp_path, VICTIMS, seed=seed, at_once=2, early=0.0, each=(6, 7)
    )
    assert not campaign.wrong, kill_campaign.table(campaign)
    assert Counter(kill.victim for kill in campaign.kills) == Counter(VICTIMS)
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
