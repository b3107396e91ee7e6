"""Target names, which are unique for all labels, and the two published tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygenome.errors import DataError, NoInput
from raygenome.genome.alleles import reserved_names
from raygenome.genome.targets import (
    Target,
    check_names,
    read_targets,
    unique_names,
    write_targets,
)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([("K562", "CTCF", "")], ["K562_CTCF"]),
        ([("K562", "CTCF", "IFNg30")], ["K562_CTCF_IFNg30"]),
        ([("a", "b", "")] * 3, ["a_b", "a_b_2", "a_b_3"]),
        ([("a", "Pol2", ""), ("A", "pol2", "")], ["a_Pol2", "A_pol2_2"]),
        # a name that ends in _2 by nature keeps it, wherever it stands
        ([("a", "b", ""), ("a", "b", ""), ("a", "b", "2")], ["a_b", "a_b_3", "a_b_2"]),
        ([("a", "b", "2"), ("a", "b", "2"), ("a", "b", "")], ["a_b_2", "a_b_2_2", "a_b"]),
        # columns of the score tables
        ([("Score", "", ""), ("e", "min", "")], ["Score_2", "e_min_2"]),
        ([("", "", ""), ("", "", "")], ["target", "target_2"]),
    ],
)
def test_unique_names(labels, names):
    assert unique_names(labels) == names


words = st.sampled_from(["", "a", "A", "b", "2", "3", "pos", "top"])


@given(st.lists(st.tuples(words, words, words), max_size=30))
def test_unique_names_are_unique_for_any_labels(labels):
    names = unique_names(labels)
    assert len(names) == len(labels)
    check_names(names, source="made here")  # unique but for case, none a fixed column
    for name, label in zip(names, labels, strict=True):
        assert name.startswith("_".join(part for part in label if part))


def test_round_trip(tmp_path):
    targets = [
        Target(0, "a_b", "a", "b", "", "TF"),
        Target(1, 'é "q"_b', 'é "q"', "b", "with\ttab", ""),
    ]
    write_targets(tmp_path / "t.tsv", targets)
    assert read_targets(tmp_path / "t.tsv") == targets
    write_targets(tmp_path / "u.tsv", targets)
    assert (tmp_path / "t.tsv").read_bytes() == (tmp_path / "u.tsv").read_bytes()


HEADER = "target\tname\tcell\tassay\ttreatment\tcategory\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a target table"),
        ("name\tcell\n", "has the columns name cell; it needs target name cell"),
        (HEADER + "0\ta\n", r"row 0 is \['0', 'a'\]; it needs target number 0 and 6 columns"),
        (HEADER + "1\ta\t\t\t\t\n", "it needs target number 0"),
        (HEADER + "0\t\t\t\t\t\n", "a target cannot be called ''; rename it"),
        (HEADER + "0\tSCORE\t\t\t\t\n", "a target cannot be called 'SCORE'; rename it"),
        (HEADER + "0\tab\t\t\t\t\n1\tAB\t\t\t\t\n", "'ab' and 'AB' need names that differ"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "targets.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_targets(path)
    assert str(path) in str(caught.value)


def test_table_that_is_not_text(tmp_path):
    path = tmp_path / "targets.tsv"
    path.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(DataError, match="is not a target table"):
        read_targets(path)
    with pytest.raises(NoInput, match=r"cannot read the target table .*No such file"):
        read_targets(tmp_path / "nope.tsv")


def test_reserved_names_are_lower_case():
    assert all(name == name.casefold() for name in reserved_names())
