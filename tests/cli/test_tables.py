"""Tables are aligned, and no value is cut off."""

import numpy as np
import pytest

from raygenome.cli.tables import make_table

NAMES = ["rank", "chrom", "pos", "id", "ref", "alt", "score", "name", "diff"]
ROWS = [
    (1, "chr20", 62_345_678, "rs1380741", "A", "C", 0.9, "GM12878_CTCF_2", -1.75238e-05),
    (2, "chr2", 5, None, "A" * 50, "C", 0.25, "GM12878_CTCF", 0.25),
]
OPTIONS = {"wrap": ("ref", "alt"), "spare": ("score", "rank", "id")}


def test_in_a_pipe_a_table_is_as_wide_as_it_has_to_be() -> None:
    text, hidden = make_table(NAMES, ROWS, **OPTIONS)
    header, first, second = text.splitlines()
    assert header.split() == NAMES
    assert first.split() == [f"{v:.6g}" if isinstance(v, float) else str(v) for v in ROWS[0]]
    assert "A" * 50 in second
    assert hidden == ""
    assert first.index("62345678") + 8 == second.index("5 ") + 1, "numbers end below each other"


def test_a_terminal_wraps_then_leaves_out_what_is_spare_then_turns() -> None:
    def shown(width: int) -> tuple[str, str]:
        text, hidden = make_table(NAMES, ROWS, width=width, **OPTIONS)
        joined = "".join(text.split())
        assert joined.count("A") >= 51, "the long allele is whole, over several lines"
        for value in ("62345678", "GM12878_CTCF_2", "-1.75238e-05"):
            assert value in text.split()
        return text, hidden

    text, hidden = shown(100)
    assert (hidden, max(map(len, text.splitlines())) <= 100) == ("", True)
    assert shown(81)[1] == "the terminal has no room for score"
    assert shown(75)[1] == "the terminal has no room for rank, score"
    text, hidden = shown(40)
    assert hidden == ""
    assert text.splitlines()[:3] == ["rank   1", "chrom  chr20", "pos    62345678"]
    assert text.splitlines()[len(NAMES)] == ""


def test_a_long_table_keeps_whole_columns() -> None:
    text, hidden = make_table(NAMES, ROWS * 50, width=35)
    assert text.splitlines()[0].split() == ["rank", "chrom", "pos", "id"]
    assert len(text.splitlines()) == 101
    assert hidden == "the terminal has room for 4 of 9 columns"
    assert make_table(["a" * 40], [("b" * 50,)] * 300, width=30).text.splitlines()[1] == "b" * 50


@pytest.mark.parametrize("width", range(10, 120, 7))
def test_no_value_is_ever_cut(width: int) -> None:
    rng = np.random.default_rng(width)
    names = [f"c{i}" for i in range(7)]
    rows = [
        [*(float(x) for x in rng.normal(size=4)), "n" * int(rng.integers(1, 30)), None, [1, 2]]
        for _ in range(int(rng.integers(1, 60)))
    ]
    text, _ = make_table(names, rows, width=width, wrap=["c6"])
    words = text.split()
    kept = [name for name in names if name in words]
    for row in rows:
        for name, value in zip(names[:5], row[:5], strict=True):
            if name in kept:
                assert (f"{value:.6g}" if isinstance(value, float) else value) in words


def test_formats_missing_values_and_headers_of_two_lines() -> None:
    rows = [("TF", 1234, 0.5), ("none", 7, None)]
    formats = {"targets": ",d", "AUROC\nmean": ".4f"}
    text, _ = make_table(["category", "targets", "AUROC\nmean"], rows, formats=formats)
    assert text.splitlines() == [
        "                    AUROC",
        "category  targets    mean",
        "TF          1,234  0.5000",
        "none            7       -",
    ]


def test_colours_are_for_a_terminal() -> None:
    rows = [("ok", "disk", "one\ntwo words")]
    names = ["level", "check", "finding"]
    options = {"header": False, "wrap": ["finding"], "colours": {"ok": "green"}}
    plain, _ = make_table(names, rows, **options)
    assert plain.splitlines() == ["ok  disk  one", "          two words"]
    coloured, _ = make_table(names, rows, width=80, **options)
    assert coloured.startswith("\x1b[32mok\x1b[0m  disk  one")
