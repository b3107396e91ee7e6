import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygenome.genome.contigs import ContigMap, display_name, partition_value

HLA = "HLA-A*01:01:01:01"


@pytest.mark.parametrize(
    ("contig", "shown"),
    [
        ("22", "chr22"),
        ("chr22", "chr22"),
        ("Chr22", "chr22"),
        ("CHRX", "chrX"),
        ("X", "chrX"),
        ("MT", "chrM"),
        ("M", "chrM"),
        ("chrM", "chrM"),
        ("chrMT", "chrM"),
        ("ChrMt", "chrM"),
        ("GL000191.1", "chrGL000191.1"),
        ("chr", "chrchr"),
        (HLA, "chr" + HLA),
    ],
)
def test_display_name(contig, shown):
    assert display_name(contig) == shown


@pytest.mark.slow
@given(st.text(min_size=1, max_size=20))
def test_display_name_is_stable_and_prefixed(contig):
    shown = display_name(contig)
    assert shown.startswith("chr")
    assert display_name(shown) == shown or contig.lower() == "chr"


@pytest.mark.parametrize(
    ("contigs", "name", "found"),
    [
        (["chr1", "chr2"], "1", "chr1"),
        (["1", "2"], "chr2", "2"),
        (["1", "2"], "Chr2", "2"),
        (["chr1", "1"], "1", "1"),
        (["chr1", "1"], "chr1", "chr1"),
        (["chr1"], "chr11", None),
        (["chr1"], "", None),
        (["chrM"], "MT", "chrM"),
        (["chrM"], "M", "chrM"),
        (["chrM"], "chrMT", "chrM"),
        (["MT"], "chrM", "MT"),
        (["M"], "MT", "M"),
        # hg19 of UCSC holds two different sequences: MT is chrMT's, M is chrM's
        (["chrM", "chrMT"], "MT", "chrMT"),
        (["chrM", "chrMT"], "M", "chrM"),
        (["GL000191.1"], "chrGL000191.1", "GL000191.1"),
        ([HLA], HLA, HLA),
    ],
)
def test_resolve(contigs, name, found):
    assert ContigMap(contigs).resolve(name) == found


@pytest.mark.parametrize(
    "chrom",
    [
        "chr22",
        "chr" + HLA,
        "chra/b",
        "chr%2F",
        "chr=1",
        "chra b",
        "chr|x",
        "chr+é",
        "chr..",
        "chr?#&",
    ],
)
def test_partition_value_comes_back_from_both_readers(tmp_path, chrom):
    value = partition_value(chrom)
    assert "/" not in value
    part = tmp_path / f"chrom={value}" / "part-00000.parquet"
    part.parent.mkdir()
    pq.write_table(pa.table({"pos": [1]}), part)
    read = ds.dataset(
        tmp_path, partitioning=ds.partitioning(pa.schema({"chrom": pa.string()}), flavor="hive")
    )
    assert read.to_table()["chrom"].to_pylist() == [chrom]
    with duckdb.connect() as connection:
        rows = connection.sql(
            "SELECT chrom FROM read_parquet(?, hive_partitioning = true)",
            params=[f"{tmp_path}/*/*.parquet"],
        ).fetchall()
    assert rows == [(chrom,)]


def test_partition_values_differ():
    names = ["chrA/b", "chrA%2Fb", "chrA_b", "chrA b", "chrA+b"]
    assert len({partition_value(name) for name in names}) == len(names)
