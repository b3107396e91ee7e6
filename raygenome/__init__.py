"""Score every variant of a VCF with DNA sequence models, and train such models.

import raygenome
run = raygenome.score("variants.vcf.gz", model="deepsea", fasta="hg19.fa", out="scores")
run.top(10)                                  # a pandas DataFrame
run.query("SELECT count(*) FROM scores")

training = raygenome.train("configs/basset.yaml", data="data", out="run")
raygenome.evaluate(model=training.model, data="data").summary()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raygenome.errors import RaygenomeError
    from raygenome.evaluation.evaluate import evaluate
    from raygenome.scoring.run import score
    from raygenome.training.run import train

__version__ = "0.1.0"

#: Public names by the module that has them. They are loaded when first used, because importing
#: raygenome must not import torch or ray.
_LAZY = {
    "RaygenomeError": "raygenome.errors",
    "evaluate": "raygenome.evaluation.evaluate",
    "score": "raygenome.scoring.run",
    "train": "raygenome.training.run",
}
__all__ = ["RaygenomeError", "evaluate", "score", "train"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'raygenome' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, "__version__"])
