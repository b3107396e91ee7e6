"""Workers leave out weak effects, but the strongest effects of the run are all kept."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.run_files import draw_effects

from raygenome.errors import DataError
from raygenome.ranking import sort_keys
from raygenome.ranking.per_target import (
    Threshold,
    TopEffects,
    merge_top_effects,
    read_top_effects,
    write_top_effects,
)


def written(keys: np.ndarray) -> bytes:
    file = BytesIO()
    write_top_effects(file, keys)
    return file.getvalue()


def plain(effects: np.ndarray, n: int, first_row: int = 0) -> np.ndarray:
    """Return the keys of the n strongest rows of each target, by sorting all of them."""
    keys = sort_keys.encode(
        np.ascontiguousarray(effects.T), np.arange(first_row, first_row + len(effects))
    )
    return np.sort(keys, axis=1)[:, ::-1][:, :n]


class Worker:
    """The threshold of a scoring worker, shard by shard."""

    def __init__(self, targets: int, n: int) -> None:
        self.n = n
        self.threshold = Threshold(targets, n)

    def score(self, shard: int, effects: np.ndarray, begin: int, *, commits: bool) -> bytes:
        top = TopEffects(effects.shape[1], self.n, begin, self.threshold)
        for start in range(0, len(effects), 7):
            top.append(effects[start : start + 7])
        keys = top.keys()
        if commits:
            self.threshold.rise(shard, keys)
        return written(keys)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_workers_leave_out_is_never_among_the_strongest(data: st.DataObject) -> None:
    """Shards are cut and assigned at random; some workers restart, some shards are done twice."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    targets, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=12))
    effects = draw_effects(rng, sum(sizes), targets)  # few distinct values: ties at every threshold
    edges = np.concatenate([[0], np.cumsum(sizes)])
    workers = [Worker(targets, n) for _ in range(data.draw(st.integers(1, 4)))]
    files: dict[int, bytes] = {}
    # Shards come in any order, and some more than once, also to the worker that had it before.
    order = [*range(len(sizes)), *data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=6))]
    for shard in data.draw(st.permutations(order)):
        who = data.draw(st.integers(0, len(workers) - 1))
        if data.draw(st.integers(0, 5)) == 0:
            workers[who] = Worker(targets, n)  # a new process has no threshold
        begin, end = edges[shard], edges[shard + 1]
        commits = data.draw(st.integers(0, 5)) > 0  # otherwise it dies before, or the disk is full
        file = workers[who].score(shard, effects[begin:end], begin, commits=commits)
        if commits or shard not in files:
            files[shard] = file
    merged = merge_top_effects((files[shard] for shard in sorted(files, key=hash)), targets, n)
    np.testing.assert_array_equal(merged, plain(effects, n))


def test_a_shard_counts_once_for_a_threshold() -> None:
    keys = plain(np.arange(1, 6, dtype=np.float32).reshape(5, 1), 5)
    threshold = Threshold(1, 8)
    threshold.rise(3, keys)
    threshold.rise(3, keys)
    assert threshold.least.tolist() == [0]
    threshold.rise(4, plain(np.arange(6, 11, dtype=np.float32).reshape(5, 1), 5, first_row=5))
    assert sort_keys.decode(threshold.least)[0].tolist() == [3]


def test_a_threshold_leaves_the_expected_share() -> None:
    rng = np.random.default_rng(5)
    threshold = Threshold(20, 100)
    left = []
    for shard in range(8):
        top = TopEffects(20, 100, 2000 * shard, threshold)
        top.append(rng.normal(size=(2000, 20)).astype(np.float32))
        keys = top.keys()
        threshold.rise(shard, keys)
        left.append(np.count_nonzero(keys) / 20)
    np.testing.assert_allclose(left, [100, *(100 / np.arange(1, 8))], rtol=0.15)


def test_files_are_ragged_and_read_back_from_bytes_or_a_file(tmp_path) -> None:
    keys = np.array([[9, 4, 2], [0, 0, 0], [7, 0, 0]], dtype=np.uint64)
    path = tmp_path / "tops"
    with path.open("wb") as handle:
        write_top_effects(handle, keys)
    assert path.read_bytes() == written(keys)
    with path.open("rb") as handle:
        for source in (handle, path.read_bytes()):
            targets, back = read_top_effects(source)
            assert targets.tolist() == [0, 0, 0, 2]
            assert back.tolist() == [9, 4, 2, 7]


@pytest.mark.parametrize("cut", [0, 5, 140, -1, -8])
def test_a_damaged_file_is_one_line(cut: int) -> None:
    data = written(plain(np.ones((4, 3), np.float32), 4))
    with pytest.raises(DataError, match=r"^[^\n]*is damaged[^\n]*--resume$"):
        read_top_effects(data[:cut])


@pytest.mark.parametrize("arrays", [("u4", "f8"), ("f4", "u8"), ("u4", "u4")])
def test_arrays_of_another_kind_are_damage(arrays: tuple[str, str]) -> None:
    file = BytesIO()
    for kind in arrays:
        np.save(file, np.ones(1, kind))
    with pytest.raises(DataError, match="is damaged"):
        read_top_effects(file.getvalue())


def test_no_files_and_no_rows() -> None:
    assert merge_top_effects([], 3, 5).shape == (3, 0)
    empty = TopEffects(3, 5, 0).keys()
    assert merge_top_effects([written(empty)], 3, 5).shape == (3, 0)
