import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.run_files import draw_effects

from raygenome.ranking import sort_keys

FLOATS = st.floats(width=32, allow_nan=False)


@pytest.mark.slow
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=FLOATS), st.data())
def test_keys_give_back_what_went_in_and_order_as_tuples_do(diff, data):
    row = st.integers(0, sort_keys.MAX_ROWS - 1)
    rows = np.array(data.draw(st.lists(row, min_size=len(diff), max_size=len(diff))), np.int64)
    keys = sort_keys.encode(diff, rows)
    assert keys.dtype == np.uint64
    back, where = sort_keys.decode(keys)
    assert back.dtype == np.float32
    assert (back == diff).all()
    assert (where == rows).all()
    wanted = sorted(zip(np.abs(diff), -rows, strict=True), reverse=True)
    got = [(abs(d), -r) for d, r in zip(*sort_keys.decode(np.sort(keys)[::-1]), strict=True)]
    assert got == wanted


@pytest.mark.parametrize("row", [-1, sort_keys.MAX_ROWS])
def test_rows_that_do_not_fit_are_refused(row):
    with pytest.raises(ValueError, match="rows must lie in"):
        sort_keys.encode(np.zeros(1, np.float32), np.array([row]))


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_merging_blocks_in_any_order_is_sorting_the_whole(n):
    rng = np.random.default_rng(31)
    effects = draw_effects(rng, 300, 6)
    rows = np.arange(300) + 5
    best = np.empty((6, 0), np.uint64)
    for block in rng.permutation(np.arange(300).reshape(-1, 20)):
        new = sort_keys.encode(np.ascontiguousarray(effects[block].T), rows[block])
        best = sort_keys.largest(np.concatenate([best, new], axis=1), n)
    diff, where = sort_keys.decode(np.sort(best, axis=1)[:, ::-1])
    for target in range(6):
        wanted = sorted(range(300), key=lambda row: (-abs(effects[row, target]), row))[:n]
        assert (where[target] == rows[wanted]).all()
        assert (diff[target] == effects[wanted, target]).all()


@pytest.mark.parametrize(("rows", "targets", "k"), [(0, 4, 2), (9, 4, 2), (9, 4, 16), (4100, 3, 2)])
def test_strongest_of_each_row(rows, targets, k):
    effects = draw_effects(np.random.default_rng(32), rows, targets)
    diff, target = sort_keys.decode(sort_keys.strongest(effects, k))
    assert diff.shape == (rows, min(k, targets))
    for row in range(rows):
        wanted = sorted(range(targets), key=lambda t: (-abs(effects[row, t]), t))[:k]
        assert target[row].tolist() == wanted
        assert (diff[row] == effects[row, wanted]).all()
