"""The folder of a training run: the names in it, and who may write there.

RUN/model/              the best model so far, a model directory
RUN/log.jsonl           a line an epoch
RUN/curves.png          the same, drawn
RUN/progress.json       how far the run is, or was
RUN/run.json            written last: the run is finished
RUN/.work/lock          held by the process that trains
RUN/.work/kind          says that this is a training run
RUN/.work/identity.json recipe and data of the run, which --resume has to match
RUN/.work/checkpoints/  checkpoint-000001200.pt: the state after so many steps
RUN/.work/progress.json how far the workers are
RUN/.work/tmp/          files being written; swept when a run starts
"""

import json
import shutil
from pathlib import Path
from typing import Any

from raygenome.registry.modeldir import SPEC_FILE
from raygenome.registry.saving import clean_up
from raygenome.storage.folder import OutputFolder
from raygenome.storage.store import Kind


class TrainDir(OutputFolder):
    """Names of the files of a training run, and how they are written."""

    KIND = Kind(
        "training run",
        finished="run.json",
        started=".work/identity.json",
        replace="--fresh",
    )

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / "model"
        self.log = path / "log.jsonl"
        self.curves = path / "curves.png"
        self.run_json = path / "run.json"
        self.told = path / "progress.json"
        self.identity = self.work / "identity.json"
        self.checkpoints = self.work / "checkpoints"
        self.progress = self.work / "progress.json"
        self.failure = self.work / "failure.json"

    def read(self, file: Path) -> Any:
        """Return what a JSON file of this run holds, None where it is not there."""
        return self.read_json(file, mend="begin again with --fresh")

    def sweep(self) -> None:
        """Remove what an earlier, dead process was writing when it ended."""
        super().sweep()
        clean_up(self.model)
        for drawing in self.path.glob(f".{self.curves.name}.*.tmp"):
            drawing.unlink()

    def clear(self) -> None:
        """Remove an earlier run, the mark of its completeness first."""
        for file in (self.run_json, self.identity, self.log, self.curves, self.told):
            file.unlink(missing_ok=True)
        if (self.model / SPEC_FILE).is_file():
            shutil.rmtree(self.model)
        self.tidy()
        self.progress.unlink(missing_ok=True)
        self.failure.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        for folder in (self.checkpoints, self.temporary, self.work / "ray"):
            shutil.rmtree(folder, ignore_errors=True)


def claim(path: Path, *, resume: bool, fresh: bool) -> TrainDir:
    """Make `path` ready to be trained in, or refuse; what is there stays for now.

    Raises:
        OutputError: something is there and neither `resume` nor `fresh` was asked for; or it is no
            training run, so that `fresh` would remove somebody's files; or it cannot be made.
    """
    run = TrainDir(path)
    run.store.claim(run.KIND, resume=resume, overwrite=fresh)
    return run


def publish_log(run: TrainDir, log: list[dict[str, Any]]) -> None:
    """Write log.jsonl and draw it, whole each time: it says what the checkpoints say."""
    from raygenome.training.curves import draw

    run.publish_text("".join(json.dumps(line) + "\n" for line in log), run.log)
    draw(log, run.curves)
