"""The structure of the program: allowed imports, and modules that must not load at start-up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from experiments.code_size import cycles, import_graph
from support.paths import ROOT

PACKAGE = Path(__file__).parent.parent / "raygenome"

#: Few folders may import each heavy dependency; all others can be tested in milliseconds.
HOMES = {
    "ray": {"cluster", "pool", "training.workers", "submission"},
    "typer": {"cli"},
    "duckdb": {"results.duck", "results.query"},
    "cyvcf2": {"vcf.bcf"},
    "pysam": {"genome.fasta", "genome.fai", "vcf.bcf", "vcf.tabix"},
    "pyfaidx": {"genome.fasta"},
    "pooch": {"registry.published"},
    "h5py": {"datasets.stored"},
    "scipy": {"datasets.deepsea_mat"},
    "pydantic": {"training.config"},
    "yaml": {"training.config"},
    "fsspec": {"results.duck"},
    "matplotlib": {"training.curves"},
}

#: A folder imports only from itself and from rows below its own.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo", "doctor", "submission"},
    {"scoring", "training"},
    {"evaluation"},
    {"pool", "engines", "ranking", "datasets"},
    {"results", "registry", "vcf"},
    {"models"},
    {"cluster", "genome"},
    {"storage", "progress"},
    {"errors"},
]


def modules() -> dict[str, set[str]]:
    """Return the absolute names that each module imports, by module name without `raygenome.`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = imported
    return found


@pytest.mark.slow
def test_each_heavy_dependency_is_at_home() -> None:
    for name, imported in modules().items():
        for package in {module.split(".")[0] for module in imported} & set(HOMES):
            at_home = name in HOMES[package] or name.split(".")[0] in HOMES[package]
            assert at_home, f"{name} imports {package}; its home is {HOMES[package]}"


@pytest.mark.slow
def test_imports_point_down() -> None:
    level = {folder: row for row, folders in enumerate(LAYERS) for folder in folders}
    for name, imported in modules().items():
        folder = name.split(".")[0]
        if (
            folder == "__init__"
        ):  # its lazy `score` is the only entry point besides the command line
            continue
        for module in imported:
            package, _, rest = module.partition(".")
            other = rest.split(".")[0]
            if package == "raygenome" and other in level and other != folder:
                assert level[folder] < level[other], f"{name} imports {module}"


@pytest.mark.parametrize("module", ["raygenome", "raygenome.cli"])
def test_importing_stays_light(module: str) -> None:
    heavy = ["torch", "ray", "duckdb", "pandas", "pyarrow", "numpy", "pysam", "yaml", "matplotlib"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle() -> None:
    assert cycles(import_graph(ROOT)) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}
    assert cycles(graph) == [["a", "b", "c"]]
