"""The target tables of the published weights."""

from collections import Counter

import pytest

from raygenome.errors import NoInput
from raygenome.genome.targets import Target, unique_names
from raygenome.models import default_targets, published_targets


@pytest.mark.parametrize(
    ("architecture", "categories", "repeated"),
    [
        ("basset", {"DNase": 164}, 0),
        ("beluga", {"DNase": 334, "TF": 690, "histone": 978}, 78),
        ("deepsea", {"DNase": 125, "TF": 690, "histone": 104}, 75),
    ],
)
def test_published_tables(architecture, categories, repeated):
    targets = published_targets(architecture)
    assert Counter(target.category for target in targets) == categories
    assert [target.target for target in targets] == list(range(len(targets)))
    assert [t.name for t in targets] == unique_names([t[2:5] for t in targets])
    assert len({t.name.casefold() for t in targets}) == len(targets)
    assert len(targets) - len({t[2:5] for t in targets}) == repeated
    assert all(t.cell and t.assay for t in targets)
    assert all(value.isascii() and value == value.strip() for t in targets for value in t[1:])


def test_known_deepsea_targets():
    targets = published_targets("deepsea")
    assert targets[0] == Target(0, "8988T_DNase", "8988T", "DNase", "", "DNase")
    assert targets[804].name == "K562_CTCF_5"
    assert targets[123].name == "WI-38_DNase_4OHTAM_20nM_72hr"
    # order of categories, as published: DNase, then TF, then histone marks
    assert [t.category for t in targets] == ["DNase"] * 125 + ["TF"] * 690 + ["histone"] * 104


def test_known_beluga_targets():
    targets = published_targets("beluga")
    assert targets[0] == Target(0, "8988T_DNase", "8988T", "DNase", "", "DNase")
    assert targets[576].name == "HepG2_SREBP1_insulin"
    assert targets[2001][2:] == ("Osteoblasts", "H4K20me1", "", "histone")
    # The DNase and TF tracks of DeepSEA come first, all but one under the same name.
    pairs = zip(targets[:815], published_targets("deepsea")[:815], strict=True)
    assert [ours.target for ours, theirs in pairs if ours[2:] != theirs[2:]] == [576]


def test_no_published_table():
    with pytest.raises(NoInput, match="no table of published targets for architecture 'nope'"):
        published_targets("nope")


def test_default_targets():
    assert default_targets("basset", 164) == published_targets("basset")
    assert [t.name for t in default_targets("basset", 2)] == ["target_0", "target_1"]
    assert len(default_targets("nope", 3)) == 3
