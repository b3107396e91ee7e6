"""Measure the size of the code, and of the part of it that runs when a VCF is scored.

    python jobs/experiments/code_size.py
    python jobs/experiments/code_size.py --checkout ../raygenome-at-another-commit

Prints the files and lines of raygenome/, the imports between its folders, the import cycles, and
the score path: the modules of which at least one function runs while the demo's VCF is scored in
this process with --engine full and with the incremental engine. `--modules` lists the score path.
Lines are all lines of a file, docstrings and comments included.
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: This script runs in a new process, so that it imports the package of the checkout. It prints the
#: files of which a function ran.
TRACED = """
import sys
from pathlib import Path

checkout, folder = map(Path, sys.argv[1:])
sys.path.insert(0, str(checkout))
import raygenome
from raygenome.demo.demo import run_demo

seen = set()
package = str(checkout / "raygenome")

def profile(frame, event, _):
    if event == "call" and frame.f_code.co_filename.startswith(package):
        if frame.f_code.co_name != "<module>":
            seen.add(frame.f_code.co_filename)

run_demo(folder / "demo", workers=0)
import threading
inputs = {"model": "demo", "fasta": folder / "demo/demo.fa", "workers": 0}
for engine in ("full", "incremental"):
    threading.setprofile(profile)
    sys.setprofile(profile)
    raygenome.score(folder / "demo/demo.vcf", out=folder / engine, engine=engine, **inputs)
    sys.setprofile(None)
    threading.setprofile(None)
print("\\n".join(sorted(seen)))
"""


def module_files(checkout: Path) -> dict[str, Path]:
    """Return the path of each module of the package, by its dotted name."""
    files = {}
    for path in sorted((checkout / "raygenome").rglob("*.py")):
        parts = path.relative_to(checkout).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports, at the top or in functions."""
    found: set[str] = set()
    for node in _nodes(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            heads = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            found |= {next((head for head in heads if head in modules), "")}
    return found - {""}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def import_graph(checkout: Path) -> dict[str, set[str]]:
    """Return which modules each module imports; imports of `raygenome` itself are left out."""
    modules = module_files(checkout)
    return {name: imports_of(path, modules) - {name, "raygenome"} for name, path in modules.items()}


def folder_of(module: str) -> str:
    """Return the folder or module directly below raygenome/ that a module is in."""
    return module.split(".")[1] if "." in module else module


def score_path(checkout: Path) -> list[Path]:
    """Return the files of which a function runs while a VCF is scored in one process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", TRACED, str(checkout), folder]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    return [Path(line) for line in lines if line.startswith(str(checkout / "raygenome"))]


def lines_of(paths: list[Path]) -> int:
    """Return the total number of lines of some files."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def main() -> None:
    """Print the figures of one checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=ROOT, help="another checkout to measure")
    parser.add_argument("--modules", action="store_true", help="list the files of the score path")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    graph = import_graph(checkout)
    files = list(module_files(checkout).values())
    arrows = {(folder_of(a), folder_of(b)) for a, others in graph.items() for b in others}
    path = score_path(checkout)
    figures = {
        "files": len(files),
        "lines": lines_of(files),
        "folders": len({folder_of(name) for name in graph}),
        "imports between folders": len([pair for pair in arrows if pair[0] != pair[1]]),
        "import cycles": cycles(graph),
        "files on the score path": len(path),
        "lines on the score path": lines_of(path),
        "lines of scoring/ and ranking/ on it": lines_of(
            [p for p in path if p.parent.name in ("scoring", "ranking")]
        ),
    }
    print(json.dumps(figures, indent=1))
    if options.modules:
        for file in path:
            print(f"{lines_of([file]):5}  {file.relative_to(checkout)}")


if __name__ == "__main__":
    main()
