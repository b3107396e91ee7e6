"""Train DNA sequence CNNs and score every variant of a VCF with them.

import raygenome
run = raygenome.score("variants.vcf.gz", model="deepsea", fasta="hg38.fa", out="scores")
run.top(10)                                  # a pandas DataFrame
run.query("SELECT count(*) FROM scores")

training = raygenome.train("configs/basset.yaml", data="data", out="run")
raygenome.evaluate(model=training.model, data="data").summary()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RaygenomeError", "evaluate", "score", "train"]

if TYPE_CHECKING:
    from raygenome.errors import RaygenomeError
    from raygenome.evaluation.evaluate import evaluate
    from raygenome.scoring.run import score
    from raygenome.training.run import train


def __getattr__(name: str) -> Any:
    # Loaded when first used: importing raygenome must not import torch or ray.
    if name == "score":
        from raygenome.scoring.run import score

        return score
    if name == "train":
        from raygenome.training.run import train

        return train
    if name == "evaluate":
        from raygenome.evaluation.evaluate import evaluate

        return evaluate
    if name == "RaygenomeError":
        from raygenome.errors import RaygenomeError

        return RaygenomeError
    raise AttributeError(f"module 'raygenome' has no attribute {name!r}")
