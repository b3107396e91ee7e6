"""What dataset.json says of a packed dataset, and the names of the files beside it.

DIR/dataset.json         this manifest, written last: a folder without it is no dataset
DIR/targets.tsv          the targets
DIR/train.rows           a record a window: its packed bases, then its packed labels
DIR/train.ns             int64 (runs, 3): row, start and end of each run of N within a window
DIR/train.sites.parquet  contig, start, end, background, where coordinates are known
...                      the same for valid and test, where they have rows
DIR/.work/               while it is being built
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygenome.errors import DataError, NoInput

#: Version of the format; a reader of one refuses another.
FORMAT = 1
MANIFEST_FILE = "dataset.json"
TARGETS_FILE = "targets.tsv"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitEntry:
    """What the manifest says of one split.

    Attributes:
        rows: windows.
        background: how many of them are outside every peak; they are among `rows`.
        with_n: how many of them hold an N.
        positives: by target.
        files: by name, each with its bytes and sha256.
    """

    rows: int = 0
    background: int = 0
    with_n: int = 0
    positives: list[int] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What dataset.json says.

    Attributes:
        recipe: how the windows were chosen: "basset", "deepsea", or the kind of file imported.
        window: bases a window.
        targets: labels a window; their names are in targets.tsv.
        splits: one entry for each of `SPLITS`.
        files: targets.tsv with its bytes and sha256.
        sources: the files that it was made from, each with path and sha256.
        options: the options that it was made with.
        counts: what became of sites that are not among the rows, in the recipe's own words.
        identity: what a build must share with an unfinished one to go on with it.
        version: of the program that wrote it.
        format: version of the dataset's format.
    """

    recipe: str
    window: int
    targets: int
    splits: dict[str, SplitEntry]
    files: dict[str, dict[str, Any]]
    sources: list[dict[str, Any]]
    options: dict[str, Any]
    counts: dict[str, Any]
    identity: dict[str, Any]
    version: str
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """The sha256, in hex, of the content: windows, labels, sites and targets, not of names."""
        files = {name: entry["sha256"] for name, entry in self.all_files().items()}
        content = json.dumps([self.format, self.window, files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def all_files(self) -> dict[str, dict[str, Any]]:
        """Return every file of the dataset but the manifest, with its bytes and sha256."""
        entries = dict(self.files)
        for split in self.splits.values():
            entries.update(split.files)
        return entries

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain values."""
        return dataclasses.asdict(self)


def read_manifest(directory: Path) -> Manifest:
    """Return what a dataset's manifest says.

    Raises:
        NoInput: the folder holds no dataset, or an unfinished one.
        DataError: the manifest is damaged or of another format version.
    """
    path = directory / MANIFEST_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            unfinished = (directory / ".work" / "parts").is_dir()
            why = "its build is unfinished; go on with --resume" if unfinished else "no dataset"
        raise NoInput(
            f"{directory} cannot be read as a dataset: {why}"
            + ("" if "resume" in str(why) else "; make one with `raygenome data build` or `import`")
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); build the dataset again") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        number = found.get("format") if isinstance(found, dict) else None
        raise DataError(
            f"{path} has format {number!r}; this raygenome reads {FORMAT}; build the dataset again"
        )
    try:
        entries = found.pop("splits")
        splits = {name: SplitEntry(**entries[name]) for name in SPLITS}
        for number in (found["window"], *(split.rows for split in splits.values())):
            if type(number) is not int or number < 0:
                raise TypeError(f"{number!r} is no count")
        return Manifest(splits=splits, **found)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); build the dataset again") from None
