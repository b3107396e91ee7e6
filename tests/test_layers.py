"""The shape of the program: who may import whom, and what must stay out of the start-up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "raygenome"

#: Each heavy dependency has few homes; all else is plain Python that tests in milliseconds.
HOMES = {
    "ray": {"pool", "actor", "cluster"},
    "typer": {"cli"},
    "duckdb": {"duck", "query", "rank"},
    "cyvcf2": {"bcf", "vcf"},
    "pysam": {"fasta", "fai", "bcf", "vcf"},
    "pyfaidx": {"fasta", "fai"},
    "pooch": {"published"},
}

#: Lower rows never import higher ones.
LAYERS = [
    {"cli", "__main__"},
    {"demo"},
    {"estimate"},
    {"run"},
    {"result", "verify"},
    {"inputs"},
    {"scoring", "rank", "query"},
    {"pool"},
    {"plan"},
    {"spool", "mismatch", "effects", "alleles", "published"},
]


def modules() -> dict[str, set[str]]:
    """Return the names each module of the package imports, absolute, with its own as raygenome.x."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE).with_suffix("")
        name = relative.parts[0]
        imported = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
                if node.module == "raygenome":
                    imported |= {f"raygenome.{alias.name}" for alias in node.names}
    return found


def test_each_heavy_dependency_is_at_home() -> None:
    for name, imported in modules().items():
        for package in {module.split(".")[0] for module in imported} & set(HOMES):
            assert name in HOMES[package], f"{name} imports {package}; its home is {HOMES[package]}"


def test_imports_point_down() -> None:
    level = {name: row for row, names in enumerate(LAYERS) for name in names}
    bottom = len(LAYERS)
    for name, imported in modules().items():
        for module in imported:
            parts = module.split(".")
            if parts[0] != "raygenome" or len(parts) < 2 or parts[1] == name:
                continue
            if name == "__init__":  # its lazy `score` is the one door besides the command line
                continue
            if parts[1] in level:
                assert level.get(name, bottom) <= level[parts[1]], f"{name} imports {module}"


@pytest.mark.parametrize("module", ["raygenome", "raygenome.cli"])
def test_importing_stays_light(module: str) -> None:
    heavy = ["torch", "ray", "duckdb", "pandas", "pyarrow", "numpy", "pysam"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_short() -> None:
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 330, f"{path.name} has {lines} lines: two subjects?"
