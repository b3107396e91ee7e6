import contextlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.run_files import entry, make_run, part_table, seal, write

from raygenome.errors import DataError, NoInput, UsageError
from raygenome.results import query
from raygenome.results.query import find_target, open_run, run_sql, top

VIEWS = ["scores", "ranked", "ranked_targets", "skipped", "targets"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(77)


@pytest.fixture
def made(tmp_path, rng):
    return make_run(tmp_path / "run", rng)


def frame(made) -> pd.DataFrame:
    """Return the expected scores view: the rows, and float16 effects by name."""
    rows = pd.DataFrame(made.rows)
    rows["score"] = np.abs(made.effects).max(axis=1)
    for target in made.targets:
        rows[target.name] = made.effects[:, target.target].astype(np.float16).astype(np.float32)
    return rows


def test_views_hold_the_run(made):
    scores = run_sql(made.path, "SELECT * EXCLUDE top FROM scores").to_pandas()
    wanted = frame(made)
    assert list(scores.columns) == list(wanted.columns)
    assert scores.to_dict("list") == wanted.to_dict("list")
    ranked = run_sql(made.path, "FROM ranked").to_pylist()
    assert ranked == made.ranked_variants()
    assert run_sql(made.path, "FROM ranked_targets").to_pylist() == made.ranked_targets()
    assert run_sql(made.path, "FROM targets").to_pylist() == [t._asdict() for t in made.targets]
    reasons = run_sql(made.path, "SELECT reason, count(*) FROM skipped GROUP BY 1 ORDER BY 1")
    assert reasons.to_pydict()["reason"] == ["no_alt", "ref_mismatch", "symbolic"]


@pytest.mark.parametrize("seed", range(5))
def test_aggregates_equal_pandas(made, seed):
    rng = np.random.default_rng(seed)
    wanted = frame(made)
    column = made.targets[int(rng.integers(5))].name
    low, high = sorted(rng.integers(1, 40, 2).tolist())
    got = run_sql(
        made.path,
        f"SELECT chrom, count(*) AS n, max(abs({column})) AS m FROM scores "
        f"WHERE pos BETWEEN {low} AND {high} GROUP BY chrom ORDER BY chrom",
    ).to_pandas()
    some = wanted[wanted["pos"].between(low, high)]
    groups = some.groupby("chrom")[column]
    assert got["chrom"].tolist() == sorted(some["chrom"].unique())
    assert got["n"].tolist() == groups.size().tolist()
    assert got["m"].tolist() == groups.apply(lambda v: v.abs().max()).tolist()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1;",
        "WITH a AS (SELECT * FROM ranked) SELECT count(*) FROM a",
        "VALUES (1)",
        "FROM targets",
        "DESCRIBE scores",
        "SUMMARIZE ranked",
        "SHOW TABLES",
        "-- a comment\nSELECT max(score) FROM ranked",
        "SELECT * FROM scores JOIN targets ON true LIMIT 3",
        "SELECT unnest(top).diff FROM scores LIMIT 3",
    ],
)
def test_statements_that_only_read_are_allowed(made, statement):
    assert run_sql(made.path, statement).num_rows > 0


@pytest.mark.slow
@pytest.mark.parametrize("columns", [True, False])
def test_a_run_without_alleles_has_the_same_views(tmp_path, rng, columns):
    empty = make_run(tmp_path / "empty", rng, sizes=(), columns=columns)
    full = make_run(tmp_path / "full", rng, columns=columns)
    for view in VIEWS:
        described = [run_sql(run.path, f"DESCRIBE {view}").to_pylist() for run in (empty, full)]
        assert described[0] == described[1]
    assert run_sql(empty.path, "FROM scores").num_rows == 0
    assert top(empty.path) == []
    assert top(empty.path, 0) == []


def test_log_odds_are_a_view_where_the_run_has_them(made):
    document = json.loads((made.path / "run.json").read_text())
    part = made.path / "log_odds" / "chrom=chr2" / "part-00000.parquet"
    write(part, part_table(made.rows[:3], made.effects[:3], made.targets, top_k=3, columns=True))
    document["files"].append({**entry(made.path, part), "dataset": "log_odds"})
    seal(made.path, document)
    assert run_sql(made.path, "FROM log_odds").num_rows == 3


# What a query must not do


@pytest.fixture
def secret(tmp_path, made) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("the secret")
    shutil.copy(made.path / "targets.parquet", tmp_path / "secret.parquet")
    (made.path / "link.txt").symlink_to(path)
    (made.path / "link.parquet").symlink_to(tmp_path / "secret.parquet")
    (made.path / "inside.csv").write_text("a\n1\n")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ATTACKS = [
    # reading outside
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM '{folder}/secret.parquet'",
    "SELECT * FROM read_parquet('{folder}/secret.parquet')",
    "SELECT * FROM read_parquet('{run}/../secret.parquet')",
    "SELECT * FROM read_parquet('{run}/scores/../../secret.parquet')",
    "SELECT * FROM read_parquet('{folder}/*.parquet')",
    "SELECT * FROM parquet_metadata('{folder}/secret.parquet')",
    "SELECT * FROM parquet_kv_metadata('{folder}/secret.parquet')",
    "SELECT * FROM read_text('{run}/link.txt')",
    "SELECT * FROM read_parquet('{run}/link.parquet')",
    "SELECT * FROM read_csv('{run}/inside.csv')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM glob('{run}/*')",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('{folder}/secret.parquet')",
    "FROM read_text('file://{secret}')",
    "FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "FROM read_parquet('s3://bucket/x.parquet')",
    "WITH a AS (FROM read_text('{secret}')) FROM a",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    # writing
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{run}/out.csv'",
    "COPY (SELECT 1 AS a) TO '{run}/targets.parquet' (FORMAT parquet)",
    "COPY ranked TO '{run}/skipped.parquet' (FORMAT parquet)",
    "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{run}/targets.parquet' (FORMAT parquet)",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN SELECT 1",
    "FROM query('COPY (SELECT 1) TO ''{run}/out.csv''')",
    "WITH a AS (COPY (SELECT 1) TO '{run}/out.csv') FROM a",
    "EXPORT DATABASE '{folder}/dump'",
    "EXPORT DATABASE '{run}/dump'",
    "IMPORT DATABASE '{run}'",
    "PREPARE a AS COPY (SELECT 1) TO '{run}/out.csv'",
    "EXECUTE a",
    # changing what the connection may do, or holds
    "ATTACH '{folder}/new.db'",
    "ATTACH '{run}/new.db' AS x",
    "ATTACH ':memory:' AS x",
    "DETACH memory",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/x.duckdb_extension'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_paths = ['/etc/passwd']",
    "SET temp_directory = '{folder}'",
    "RESET enable_external_access",
    "SET VARIABLE a = 1",
    "PRAGMA version",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CALL enable_logging(storage = 'file', storage_path = '{folder}/log')",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW scores AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET s (TYPE s3)",
    "DROP VIEW scores",
    "ALTER VIEW scores RENAME TO s",
    "INSERT INTO targets VALUES (1)",
    "UPDATE targets SET name = 'x'",
    "DELETE FROM targets",
    "WITH a AS (INSERT INTO targets SELECT * FROM targets RETURNING *) FROM a",
    "WITH a AS (DELETE FROM targets RETURNING *) FROM a",
    # more than one
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{run}/out.csv'",
    "COPY (SELECT 1) TO '{run}/out.csv'; SELECT 1",
    "SELECT 1; SET lock_configuration = false",
    "",
    ";",
    "-- nothing",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_in_one_line_and_leave_nothing(made, secret, tmp_path, attack):
    before = snapshot(tmp_path)
    statement = attack.format(secret=secret, folder=tmp_path, run=made.path)
    with pytest.raises(UsageError) as caught:
        run_sql(made.path, statement)
    assert "\n" not in str(caught.value)
    assert "the secret" not in str(caught.value)
    assert snapshot(tmp_path) == before
    assert run_sql(made.path, "FROM ranked").num_rows == len(made.rows)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.startswith(("COPY", "EXPORT", "ATT"))])
def test_the_connection_itself_refuses_other_files(made, secret, tmp_path, attack):
    """The second protection: even without the check of statements no new file can be created."""
    before = set(snapshot(tmp_path))
    statement = attack.format(secret=secret, folder=tmp_path, run=made.path)
    with open_run(made.path) as sql, contextlib.suppress(query.duckdb.Error):
        sql.execute(statement)
    assert set(snapshot(tmp_path)) == before


def test_python_variables_are_not_tables(made):
    hidden = pa.table({"a": [1]})
    with pytest.raises(UsageError, match="hidden does not exist"):
        run_sql(made.path, "SELECT * FROM hidden")
    del hidden


def test_a_listed_file_outside_the_run_is_refused(made, secret):
    document = json.loads((made.path / "run.json").read_text())
    for name in ("../secret.parquet", "link.parquet"):
        listed = {**document, "parts": [{**document["parts"][0], "path": name}]}
        seal(made.path, listed)
        with pytest.raises(DataError, match="lies outside the run"):
            run_sql(made.path, "FROM scores")


@pytest.mark.parametrize("name", ["run[1]", "it's", "r*n", "ru?1"])
def test_odd_names_of_run_directories(tmp_path, rng, name):
    make_run(tmp_path / "run1", rng)
    made = make_run(tmp_path / name, rng, sizes=(("chr1", 4),))
    assert run_sql(made.path, "FROM scores").num_rows == 4
    assert run_sql(os.path.relpath(made.path), "FROM ranked").num_rows == 4


# Mistakes


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", "(?i)syntax error.*tables are scores, ranked"),
        ("SELECT * FROM score", 'score does not exist! Did you mean "scores"'),
        ("SELECT nope FROM ranked", 'nope" not found'),
        ("SELECT 'x'::INTEGER", "Could not convert string 'x'"),
        ("INSERT INTO ranked VALUES (1)", "the statement is INSERT; only SELECT is allowed"),
        ("SELECT 1; SELECT 2", "2 statements were given; give a single SELECT"),
    ],
)
def test_mistakes_are_errors_of_one_line(made, statement, message):
    with pytest.raises(UsageError, match=message) as caught:
        run_sql(made.path, statement)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_missing_and_unfinished_runs_are_refused(tmp_path, made):
    with pytest.raises(NoInput, match="no such run directory"):
        run_sql(tmp_path / "no", "SELECT 1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInput, match="holds no run"):
        top(tmp_path / "empty")
    (made.path / "_SUCCESS").unlink()
    with pytest.raises(DataError, match=r"unfinished run; finish it: .*--resume"):
        run_sql(made.path, "SELECT 1")
    (made.path / "run.json").unlink()
    (made.path / ".work").mkdir()
    with pytest.raises(DataError, match="--resume"):
        top(made.path)


def test_a_damaged_part_is_named(made):
    made.parts[1].unlink()
    with pytest.raises(DataError, match=r"part-00001.parquet is missing.*verify"):
        run_sql(made.path, "SELECT 1")
    made.parts[1].write_bytes(b"no parquet")
    with pytest.raises(DataError, match="raygenome verify"):
        run_sql(made.path, "FROM scores")
    made.parts[0].write_bytes(b"no parquet")
    with pytest.raises(DataError, match="raygenome verify"):
        run_sql(made.path, "SELECT 1")


# The top


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_top_of_all(made, n):
    keys = ["rank", "chrom", "pos", "id", "ref", "alt", "score", "name", "diff"]
    wanted = [{key: row[key] for key in keys} for row in made.ranked_variants()[:n]]
    assert top(made.path, n=n) == wanted


@pytest.mark.parametrize("target", ["Cell1_T4", "cell1_t4", 4, "4"])
def test_top_of_one_target(made, target):
    keys = ["rank", "chrom", "pos", "id", "ref", "alt", "diff"]
    rows = [row for row in made.ranked_targets() if row["target"] == 4]
    assert top(made.path, target, 5) == [{key: row[key] for key in keys} for row in rows[:5]]


def test_top_warns_if_the_run_keeps_fewer(made, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(top(made.path, 0, 7)) == 7
        assert caplog.text == ""
        assert len(top(made.path, 0, 8)) == 7
    assert "keeps the 7 strongest" in caplog.text
    with pytest.raises(UsageError, match="at least 1"):
        top(made.path, n=0)


def test_find_target():
    names = ["GM12878_CTCF", "K562_CTCF", "K562_GATA1", "3", "HepG2_DNase"]
    assert find_target(names, "k562_ctcf") == 1
    assert find_target(names, "3") == 3
    assert find_target(names, 2) == 2
    assert find_target(names, "0") == 0
    for given, message in [
        ("CTCF", "similar names are GM12878_CTCF, K562_CTCF$"),
        ("K562_GATA2", "similar names are K562_GATA1"),
        ("zzzz", r"SELECT \* FROM targets"),
        (9, "indices are 0 to 4"),
        (-1, "no target is called '-1'"),
        ("", "no target is called ''"),
    ]:
        with pytest.raises(UsageError, match=message):
            find_target(names, given)
