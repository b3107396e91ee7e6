"""The content of dataset.json, the manifest of a packed dataset, and the names of its files.

DIR/dataset.json           this manifest, written last: a folder without it holds no dataset
DIR/targets.tsv            the targets
DIR/train.rows             one record per window: its packed bases, then its packed labels
DIR/train.ns               int64 (runs, 3): row, start and end of each run of N within a window
DIR/train.windows.parquet  contig, start, end, negative; only where the coordinates are known
...                        the same for valid and test, where they have rows
DIR/.work/                 only while the dataset is being built

Format 1 had `background` in place of `negatives`, and train.sites.parquet with a column
`background`. It is read as well.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from raygenome.errors import DataError, NoInput
from raygenome.storage.store import Store

#: The version of the format that is written, and all versions that are read.
FORMAT, READABLE = 2, (1, 2)
MANIFEST_FILE = "dataset.json"
TARGETS_FILE = "targets.tsv"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitEntry:
    """The entry of one split in the manifest.

    Attributes:
        rows: number of windows.
        negatives: how many of these windows lie outside every peak.
        with_n: how many of these windows hold an N.
        positives: number of positive windows per target.
        files: by name, each with its bytes and sha256.
    """

    rows: int = 0
    negatives: int = 0
    with_n: int = 0
    positives: list[int] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of dataset.json.

    Attributes:
        recipe: how the windows were chosen: "basset", "deepsea", or the kind of file imported.
        window: bases per window.
        targets: labels per window; their names are in targets.tsv.
        splits: one entry for each of `SPLITS`.
        files: targets.tsv with its bytes and sha256.
        sources: the files that the dataset was made from, each with path and sha256.
        options: the options that it was made with.
        counts: what happened to the peaks and to windows that were left out, per recipe.
        identity: what must be equal for a build to continue an unfinished one.
        version: version of the program that wrote the dataset.
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
        """The sha256, in hex, of the content (windows, labels, coordinates, targets)."""
        files = {name: entry["sha256"] for name, entry in self.all_files().items()}
        content = json.dumps([self.format, self.window, files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def all_files(self) -> dict[str, dict[str, Any]]:
        """Return every file of the dataset except the manifest, with its bytes and sha256."""
        entries = dict(self.files)
        for split in self.splits.values():
            entries.update(split.files)
        return entries

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain values."""
        return dataclasses.asdict(self)


def read_manifest(store: Store) -> Manifest:
    """Return the manifest of the dataset at a place.

    Raises:
        NoInput: the place holds no dataset, or an unfinished one.
        DataError: the manifest is damaged or of another format version.
    """
    path = store.shown(MANIFEST_FILE)
    try:
        found = json.loads(store.read(MANIFEST_FILE))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_dataset(store) from None
    except OSError as error:
        raise NoInput(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})", "build the dataset again") from None
    number = found.get("format") if isinstance(found, dict) else None
    if number not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise DataError(
            f"{path} has format {number!r}; this raygenome reads {known}", "build the dataset again"
        )
    try:
        entries = found.pop("splits")
        if number == 1:
            for entry in (*entries.values(), found["identity"]):
                if "background" in entry:
                    entry["negatives"] = entry.pop("background")
        splits = {name: SplitEntry(**entries[name]) for name in SPLITS}
        for count in (found["window"], *(split.rows for split in splits.values())):
            if type(count) is not int or count < 0:
                raise TypeError(f"{count!r} is not a count")
        return Manifest(splits=splits, **found)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error})", "build the dataset again") from None


def _no_dataset(store: Store) -> NoInput:
    if store.sizes(".work/parts"):
        return NoInput(f"the dataset in {store.place} is unfinished", "continue it with --resume")
    return NoInput(
        f"there is no dataset in {store.place}: it has no {MANIFEST_FILE}",
        "make one with `raygenome data build` or `raygenome data import`",
    )
