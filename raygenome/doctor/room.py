"""Whether this machine has enough for a run: disk, shared memory, open files, cores, memory."""

import contextlib
import math
import os
import resource
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from raygenome.cluster.hardware import cores
from raygenome.doctor.finding import Finding, failed, size
from raygenome.errors import RaygenomeError
from raygenome.registry import registry
from raygenome.storage.bucket import Bucket, StoreError, is_remote

#: Bytes that should be free. TMPDIR holds the weights that the workers of a machine share (1.2 GB
#: for DeepSEA); RAYGENOME_HOME holds models and indexes; --out holds the scores of a small VCF.
_OUT, _TEMPORARY, _HOME = 10e9, 1.2e9, 1e9
#: With less than this a run can hardly commit anything.
_LEAST = 0.2e9
#: Ray keeps its object store in shared memory; with less than this it uses slow files.
_SHARED = 0.1e9
_OPEN_FILES = 4096
#: Memory of a worker with DeepSEA, and of the process that plans and ranks.
_MEMORY = 4e9


def check_room(out: str | None, root: Path = Path("/")) -> list[Finding]:
    """Return the findings on folders and limits that a run would use here.

    Args:
        out: folder of a future run, a path or a URL; None for the working directory.
        root: folder that holds `proc` and `sys`.
    """
    place = out or "."
    first = _store(place) if is_remote(place) else _folder("--out", Path(place), _OUT)
    return [
        first,
        _folder("TMPDIR", Path(tempfile.gettempdir()), _TEMPORARY),
        _folder("RAYGENOME_HOME", registry.home(), _HOME),
        _shared_memory(),
        _open_files(),
        _processors(root),
        _memory(root),
    ]


def _folder(check: str, folder: Path, wanted: float) -> Finding:
    """Return whether a folder, or the one above it, can be written to, and its free space."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    do = f"choose another folder: {_CHOOSE[check]}"
    if not there.is_dir():
        return Finding(check, "problem", f"{there} is not a folder", do)
    probe = there / f".raygenome-doctor-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(there).free
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        return Finding(check, "problem", f"{there} cannot be written to ({error.strerror})", do)
    found = f"{size(free)} free in {there}"
    if free < _LEAST:
        return Finding(check, "problem", found, f"{size(wanted)} should be free; {do}")
    if free < wanted:
        return Finding(check, "note", found, f"{size(wanted)} would be better; {do}")
    return Finding(check, "ok", found)


_CHOOSE = {"--out": "--out DIR", "TMPDIR": "set TMPDIR", "RAYGENOME_HOME": "set RAYGENOME_HOME"}


def _store(url: str) -> Finding:
    """Return whether one can write to an object store: a file is made and removed."""
    name = f".raygenome-doctor-{uuid.uuid4().hex}"
    try:
        bucket = Bucket(url).without_retries()
        new = _folders_to_come(bucket)
        bucket.put(b"x", name)
        bucket.remove(name)
        _remove_folders(bucket, new)
    except StoreError as error:
        do = "check that the bucket exists, and your credentials and permissions"
        return Finding("--out", "problem", f"{url} cannot be written to: {error.why}", do)
    except (RaygenomeError, OSError) as error:
        return failed("--out", error, "check your credentials and permissions")
    return Finding("--out", "ok", f"{url} can be written to")


def _folders_to_come(bucket: Bucket) -> list[str]:
    """Return the folders at and above the place that do not exist; pyarrow makes some of them."""
    path = PurePosixPath(bucket.path())
    folders = [str(folder) for folder in (path, *path.parents)][:-2]  # without the bucket, and "."
    with contextlib.suppress(OSError):  # no permission to ask
        found = bucket.filesystem.get_file_info(folders)
        return [info.path for info in found if info.type.name == "NotFound"]
    return []


def _remove_folders(bucket: Bucket, folders: list[str]) -> None:
    """Remove the objects that stand for empty folders."""
    from pyarrow import fs

    with contextlib.suppress(OSError):
        for folder in folders:
            below = fs.FileSelector(folder, recursive=True, allow_not_found=True)
            if any(info.is_file for info in bucket.filesystem.get_file_info(below)):
                return  # a run has started there meanwhile
            with contextlib.suppress(FileNotFoundError):
                bucket.filesystem.delete_dir(folder)


def _shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return Finding("shared memory", "skipped", f"there is no {folder} here")
    found = f"{size(usage.free)} free of {size(usage.total)} in {folder}"
    if usage.free < _SHARED:
        do = f"Ray needs {size(_SHARED)} or more; a container gets it with --shm-size=1g"
        return Finding("shared memory", "note", found, do)
    return Finding("shared memory", "ok", found)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"{soft:,}"
    if unlimited or soft >= _OPEN_FILES:
        return Finding("open files", "ok", found)
    do = f"a Ray head with many workers needs {_OPEN_FILES:,} or more: ulimit -n 65536"
    return Finding("open files", "note", f"{found} (hard limit {hard:,})", do)


def _processors(root: Path) -> Finding:
    count, share = cores(), cgroup_cpus(root)
    if share < count:
        found = f"{count} cores, but the container may use only {share:g}"
        do = f"more workers would slow each other down: --workers {max(1, int(share))}"
        return Finding("cores", "note", found, do)
    return Finding("cores", "ok", str(count))


def _memory(root: Path) -> Finding:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_memory(root)
    usable = min(there, limit)
    found = size(usable) + (f" of {size(there)}, by the container's limit" if limit < there else "")
    if usable < _MEMORY:
        do = f"one worker with DeepSEA, and planning, take {size(_MEMORY)}"
        return Finding("memory", "note", found, do)
    return Finding("memory", "ok", found)


def cgroup_cpus(root: Path = Path("/")) -> float:
    """Return how many cores' time the control group of this process allows; infinity for all."""
    limits = [math.inf]
    for text in _cgroup_files(root, "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            limits.append(int(quota) / int(period))
    return min(limits)


def cgroup_memory(root: Path = Path("/")) -> float:
    """Return how many bytes the control group of this process allows; infinity for all."""
    limits = [text for text in _cgroup_files(root, "memory.max") if text != "max"]
    return min(map(float, limits), default=math.inf)


def _cgroup_files(root: Path, name: str) -> Iterator[str]:
    """Yield the content of a file in this process's control group and its parents (version 2)."""
    top = root / "sys/fs/cgroup"
    own = top
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                own = top / line.removeprefix("0::/")
    while True:
        with contextlib.suppress(OSError):
            yield (own / name).read_text().strip()
        if own == top or top not in own.parents:
            return
        own = own.parent
