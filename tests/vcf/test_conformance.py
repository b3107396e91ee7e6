"""Files of the hts-specs corpus through `score`, in one process: each is scored or refused."""

import os
import re
from pathlib import Path

import pytest
from support.builders import random_genome, write_fasta, write_model

import raygenome
from raygenome.errors import DataError, NoInput

#: `make chaos` scores every file of the corpus, the suite one in four.
STRIDE = 1 if os.environ.get("RAYGENOME_CONFORMANCE") == "every" else 4
#: The contigs that the corpus uses; longer than nearly all its positions.
CONTIGS = {str(number): 60_000 for number in range(1, 23)} | {"X": 60_000, "Y": 60_000}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("conformance")
    genome = random_genome(0, **CONTIGS)
    return {
        "fasta": write_fasta(folder / "genome.fa", genome),
        "model": write_model(
            folder / "stub", window=20, targets=2, channels=[2], kernels=[3], pools=[2], hidden=[2]
        ),
    }


def site_lines(path: Path) -> list[bytes]:
    """Return the lines that are records, found in the simplest way."""
    lines = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")
    header = next(i for i, line in enumerate(lines) if line.startswith(b"#CHROM"))
    return [line for line in lines[header + 1 :] if line.strip()]


@pytest.mark.slow
def test_every_file_ends_well(tmp_path: Path, real_data: Path, inputs: dict[str, Path]) -> None:
    files = sorted((real_data / "vcf-conformance/hts-specs").rglob("*.vcf"))
    assert len(files) > 600
    files = files[::STRIDE]
    refused: dict[str, str] = {}
    for number, path in enumerate(files):
        try:
            run = raygenome.score(
                path, **inputs, out=tmp_path / str(number), workers=0, ref_mismatch="keep"
            )
        except (DataError, NoInput) as error:
            message = str(error)
            assert message, path
            assert "\n" not in message, path
            refused[str(path)] = message
            continue
        counts = run.counts
        assert run.document["inputs"]["vcf"]["records"] == len(site_lines(path)), path
        alts = sum(line.split(b"\t")[4].count(b",") + 1 for line in site_lines(path))
        assert counts["read"] == alts, path
        assert alts == counts["scored"] + sum(counts["skipped"].values()), path
    for path, message in refused.items():
        print(f"{Path(path).name}: {message}")
    assert not [path for path in refused if "/passed/" in path]
    # Defects in INFO, FORMAT, samples and meta lines do not touch the sites.
    causes = [re.search(rb"##CauseOfFailure=(.*)", Path(p).read_bytes()) for p in refused]
    kinds = {cause[1].decode().lower() for cause in causes if cause}
    print(len(refused), "of", len(files), "refused:", sorted(kinds))
    assert len(refused) < 0.2 * len(files)
