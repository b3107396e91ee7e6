import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from support.run_files import make_run
from typer.testing import CliRunner

from raygenome.cli import ask
from raygenome.errors import UsageError


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "run", np.random.default_rng(3))


@pytest.fixture
def ask_for(made):
    """Run one command of the run and return (exit code, what it printed)."""
    app = typer.Typer()
    ask.register(app)

    def call(command, *arguments, code=0):
        done = CliRunner().invoke(app, [command, str(made.path), *map(str, arguments)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code
        return done.output

    return call


def test_query_gives_json_and_csv(made, ask_for):
    sql = "SELECT pos, id, score, top FROM scores WHERE chrom = 'chr10' ORDER BY record"
    wanted = [row for row in made.rows if row["chrom"] == "chr10"]
    wanted.sort(key=lambda row: row["record"])
    rows = json.loads(ask_for("query", sql, "--json"))
    assert [row["pos"] for row in rows] == [row["pos"] for row in wanted]
    assert rows[0]["top"][0].keys() == {"target", "diff"}
    for flags in ((), ("--csv",)):
        listed = list(csv.DictReader(io.StringIO(ask_for("query", sql, *flags))))
        assert [row["id"] for row in listed] == [row["id"] for row in wanted]
        assert json.loads(listed[0]["top"]) == rows[0]["top"]
        assert float(listed[0]["score"]) == rows[0]["score"]


def test_query_converts_values_that_json_does_not_have(ask_for):
    sql = "SELECT sum(pos) AS s, 'nan'::FLOAT AS n, NULL AS z, DATE '2020-01-02' AS d FROM scores"
    (row,) = json.loads(ask_for("query", sql, "--json"))
    assert isinstance(row["s"], int)
    assert row["n"] is None
    assert row["z"] is None
    assert row["d"] == "2020-01-02"
    assert json.loads(ask_for("query", "FROM scores WHERE false", "--json")) == []


def test_two_columns_of_one_name(ask_for):
    assert ask_for("query", "SELECT 1 AS a, 2 AS a").splitlines()[1] == "1,2"
    with pytest.raises(UsageError, match="two columns have one name"):
        ask_for("query", "SELECT 1 AS a, 2 AS a", "--json")


def test_an_error_while_rows_are_read_is_one_line(ask_for):
    late = "SELECT CASE WHEN range < 99999 THEN '1' ELSE 'x' END::INTEGER FROM range(100000)"
    with pytest.raises(UsageError, match="Could not convert string 'x'"):
        ask_for("query", late)


@pytest.mark.slow
def test_memory_of_a_query_does_not_grow_with_the_answer(made):
    """The answer is 20 times as long; a list of all its rows would take a gigabyte."""
    code = (
        "import resource, sys; from raygenome.cli import run; run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for rows in (100_000, 2_000_000):
        sql = f"SELECT range AS a, range + 1 AS b, 'some text' AS c FROM range({rows})"
        words = [sys.executable, "-c", code, "query", str(made.path), sql]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") == rows + 1
        peaks.append(int(done.stderr))
    assert peaks[1] < 1.3 * peaks[0]


@pytest.fixture
def terminal(made, monkeypatch, capsys):
    """Run one command of the run on a terminal of some width and return (stdout, stderr)."""
    app = typer.Typer()
    ask.register(app)

    def call(width, *words):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        command, *rest = words
        app([command, str(made.path), *rest], standalone_mode=False)
        return capsys.readouterr()

    return call


def test_query_on_a_terminal_is_a_table_of_100_rows(terminal):
    columns = "range AS n, '[red]rs' || range AS id, 0.123456789::DOUBLE AS x, NULL AS e"
    sql = f"SELECT {columns} FROM range({{}})"
    out, err = terminal(80, "query", sql.format(150))
    lines = out.splitlines()
    assert lines[0].split() == ["n", "id", "x", "e"]
    assert lines[1].split() == ["0", "[red]rs0", "0.123457"]
    assert len(lines) == 1 + 100
    assert err == "(the first 100 rows; --csv or --json prints all)\n"
    out, err = terminal(80, "query", sql.format(100))
    assert len(out.splitlines()) == 1 + 100
    assert err == ""


def test_query_on_a_terminal_cuts_no_number(terminal, made):
    """A wide table is transposed if it has few rows; otherwise only whole columns are left out."""
    names = ", ".join(f"{1.75238e-05 * 3**i} AS x{i}" for i in range(12))
    out, err = terminal(80, "query", f"SELECT {names}")
    assert [line.split()[0] for line in out.splitlines()] == [f"x{i}" for i in range(12)]
    assert all(float(line.split()[1]) > 1e-5 for line in out.splitlines())
    assert err == ""
    out, err = terminal(80, "query", f"SELECT {names} FROM range(50)")
    assert "1.75238e-05" in out
    assert max(map(len, out.splitlines())) <= 80
    assert err == "(the terminal has room for 6 of 12 columns; --csv or --json prints all)\n"


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_top_on_a_terminal_keeps_every_position_and_name(terminal, ask_for, width):
    rows = json.loads(ask_for("top", "-n", 20, "--json"))
    out, _ = terminal(width, "top", "-n", "20")
    words = out.split()
    for key in ("pos", "name"):
        assert [word for word in words if word in {str(row[key]) for row in rows}]
        assert {str(row[key]) for row in rows} <= set(words)
    assert "…" not in out


def test_top(made, ask_for):
    rows = json.loads(ask_for("top", "-n", 3, "--json"))
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert {"rank", "chrom", "pos", "id", "ref", "alt", "score"} <= rows[0].keys()
    rows = json.loads(ask_for("top", "--target", "cell1_t4", "--json", "-n", 2))
    assert rows[0].keys() == {"rank", "chrom", "pos", "id", "ref", "alt", "diff"}
    shown = ask_for("top", "-n", 2).splitlines()
    assert len(shown) == 3
    assert shown[0].split()[:6] == ["rank", "chrom", "pos", "id", "ref", "alt"]
    with pytest.raises(UsageError, match="no target is called 'nothing'"):
        ask_for("top", "--target", "nothing")


def test_top_in_a_pipe_prints_every_row_that_was_asked_for(tmp_path):
    """A program that reads the output gets all rows."""
    app = typer.Typer()
    ask.register(app)
    run = make_run(tmp_path / "big", np.random.default_rng(1), sizes=(("chr2", 1_200),))

    def top(*words):
        done = CliRunner().invoke(app, ["top", str(run.path), "-n", "1200", *words])
        assert done.exit_code == 0
        return done.output

    rows = json.loads(top("--json"))
    assert len(rows) == 1_200
    assert len(top().splitlines()) == 1_201
    listed = list(csv.DictReader(io.StringIO(top("--csv"))))
    assert [(row["chrom"], int(row["pos"]), row["alt"]) for row in listed] == [
        (row["chrom"], row["pos"], row["alt"]) for row in rows
    ]


def test_verify(made, ask_for):
    assert ask_for("verify").endswith("run: OK (10 files, 0.0 MB)\n")
    assert json.loads(ask_for("verify", "--deep", "--json"))["problems"] == []
    made.parts[0].unlink()
    shown = ask_for("verify", code=65).splitlines()
    assert shown[0] == "scores/chrom=chr2/part-00000.parquet: is missing"
    assert "1 problem (" in shown[-1]
    assert len(json.loads(ask_for("verify", "--json", code=65))["problems"]) == 1


@pytest.mark.parametrize("command", ["query", "top", "verify"])
def test_help_has_an_example(ask_for, command):
    app = typer.Typer(rich_markup_mode=None)
    ask.register(app)
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert f"Example: raygenome {command} scores" in shown
