import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.run_files import entry, make_run, seal, write

from raygenome.errors import DataError, NoInput, RaygenomeError
from raygenome.results.verify import verify


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(99)


@pytest.fixture
def made(tmp_path, rng):
    return make_run(tmp_path / "run", rng)


def document(made) -> dict:
    return json.loads((made.path / "run.json").read_text())


def relist(made, name: str) -> None:
    """Record the present content of a file in run.json, as if it had been written like this."""
    changed = document(made)
    for group in ("parts", "files"):
        changed[group] = [
            {**old, **entry(made.path, made.path / name)} if old["path"] == name else old
            for old in changed[group]
        ]
    seal(made.path, changed)


def test_a_whole_run(made):
    report = verify(made.path, deep=True)
    assert report.whole
    assert report.problems == []
    assert report.files == 4 + 4 + 2
    assert verify(str(made.path)).whole


def test_a_run_without_alleles(tmp_path, rng):
    assert verify(make_run(tmp_path / "empty", rng, sizes=()).path, deep=True).problems == []


@pytest.mark.slow
def test_every_single_flipped_bit_is_found(made, rng):
    files = sorted(path for path in made.path.rglob("*") if path.is_file())
    assert len(files) == 10
    for turn in range(200):
        path = files[turn % len(files)]
        whole = path.read_bytes()
        bit = int(rng.integers(len(whole) * 8))
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            problems = verify(made.path).problems
        except RaygenomeError as error:
            problems = [str(error)]
        assert problems, (path, bit)
        assert all("\n" not in problem for problem in problems)
        path.write_bytes(whole)
    assert verify(made.path).whole


@pytest.mark.slow
def test_every_bit_of_the_seal_counts(tmp_path, rng):
    made = make_run(tmp_path / "small", rng, sizes=())
    path = made.path / "_SUCCESS"
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert not verify(made.path).whole, (bit, data[bit // 8 - 20 : bit // 8 + 20])


def test_missing_shortened_and_stray_files(made):
    made.parts[0].unlink()
    made.parts[1].write_bytes(made.parts[1].read_bytes()[:-1])
    write(made.path / "scores" / "chrom=chr9" / "part-00009.parquet", pa.table({"a": [1]}))
    problems = verify(made.path).problems
    assert len(problems) == 3
    assert problems[0] == "scores/chrom=chr2/part-00000.parquet: is missing"
    assert "bytes, run.json says" in problems[1]
    assert problems[2].startswith("scores/chrom=chr9/part-00009.parquet: is not a file of this run")


def test_swapped_parts_are_found(made):
    first, second = (part.read_bytes() for part in made.parts[:2])
    made.parts[0].write_bytes(second)
    made.parts[1].write_bytes(first)
    assert len(verify(made.path).problems) == 2


def test_a_listed_file_outside_or_twice(made, tmp_path):
    changed = document(made)
    changed["parts"][0]["path"] = "../outside.parquet"
    changed["parts"][2] = changed["parts"][1]
    seal(made.path, changed)
    problems = verify(made.path).problems
    assert "../outside.parquet: lies outside the run directory" in problems
    assert "scores/chrom=chr2/part-00001.parquet: is listed 2 times in run.json" in problems
    assert "scores/chrom=chr2/part-00000.parquet: is not a file of this run; move it elsewhere" in (
        problems
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"read": 1},
            r"run.json: 1 alleles were read, which is not 69 scored \+ 4 skipped \+ 2 filtered",
        ),
        ({"filtered": 0}, "2 skipped|75 alleles were read"),
        ({"scored": 68, "read": 74}, "scores: its parts hold 69 alleles, run.json says 68"),
        ({"scored": 68, "read": 74}, "ranked/variants.parquet: ranks 69 alleles"),
        (
            {"skipped": {"no_alt": 1, "ref_mismatch": 1, "symbolic": 1, "too_long": 1}},
            "skipped.parquet: 2 rows of no_alt, run.json says 1",
        ),
        (
            {"skipped": {"no_alt": 1, "ref_mismatch": 1, "symbolic": 1, "too_long": 1}},
            "skipped.parquet: 0 rows of too_long, run.json says 1",
        ),
    ],
)
def test_counts_that_do_not_add_up(made, change, message):
    changed = document(made)
    changed["counts"] |= change
    seal(made.path, changed)
    with pytest.raises(DataError, match=message):
        raise DataError("; ".join(verify(made.path).problems))


def test_rows_of_a_file_against_run_json(made):
    changed = document(made)
    changed["parts"][0]["rows"] += 1
    seal(made.path, changed)
    assert "part-00000.parquet: has 30 rows, run.json says 31" in verify(made.path).problems[0]


@pytest.mark.parametrize(
    ("column", "spoil", "message"),
    [
        ("rank", lambda v: v[::-1], "the ranks from row 0 on are not 1, 2, 3"),
        ("rank", lambda v: np.where(v == 5, 6, v), "the ranks from row 0 on are not 1, 2, 3"),
        ("score", lambda v: v[::-1], "the scores from row 0 on are not in descending order"),
        ("score", lambda v: np.where(v == v[3], np.nan, v), "not in descending order"),
    ],
)
def test_ranks_and_their_order(made, column, spoil, message):
    path = made.path / "ranked" / "variants.parquet"
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    values = spoil(table[column].to_numpy()).astype(table[column].to_numpy().dtype)
    write(path, table.set_column(index, column, pa.array(values)))
    relist(made, "ranked/variants.parquet")
    (problem,) = verify(made.path).problems
    assert problem.startswith("ranked/variants.parquet: ")
    assert message in problem


def test_rows_of_ranked_targets(made):
    path = made.path / "ranked" / "targets.parquet"
    write(path, pq.read_table(path).slice(1))
    relist(made, "ranked/targets.parquet")
    assert verify(made.path).problems == ["ranked/targets.parquet: has 34 rows, the run needs 35"]


def test_damage_from_before_the_first_hash_is_found_by_deep(made):
    name = "scores/chrom=chr2/part-00000.parquet"
    path = made.path / name
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    relist(made, name)
    assert verify(made.path).whole
    (problem,) = verify(made.path, deep=True).problems
    assert problem.startswith(f"{name}: a page is damaged")


def test_missing_and_unfinished_runs_are_refused(tmp_path, made):
    with pytest.raises(NoInput, match="no such run directory"):
        verify(tmp_path / "no")
    with pytest.raises(NoInput, match="holds no run"):
        verify(tmp_path)
    changed = document(made)
    seal(made.path, {**changed, "format": 2})
    assert "has format 2, but this raygenome reads 1" in verify(made.path).problems[0]
    (made.path / "run.json").unlink()
    with pytest.raises(DataError, match="--resume"):
        verify(made.path)
