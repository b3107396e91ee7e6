"""Whether this machine has room for a run: disk, shared memory, open files, cores, memory."""

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

#: Bytes that places should have free. TMPDIR holds the weights that the workers of a machine
#: share (DeepSEA's take 1.2 GB); the home, models and indices; --out, what a modest VCF gives.
_OUT, _TEMPORARY, _HOME = 10e9, 1.2e9, 1e9
#: Below this a run can hardly commit a thing.
_LEAST = 0.2e9
#: Ray keeps its object store in shared memory; with less it uses files, slowly.
_SHARED = 0.1e9
_OPEN_FILES = 4096
#: Memory of a worker with DeepSEA, and of the process that plans and ranks.
_MEMORY = 4e9


def check_room(out: str | None) -> list[Finding]:
    """Return what places and limits a run would find here.

    Args:
        out: where a run would go, a path or a URL; None for the working directory.
    """
    place = out or "."
    first = _store(place) if is_remote(place) else _folder("--out", Path(place), _OUT)
    return [
        first,
        _folder("TMPDIR", Path(tempfile.gettempdir()), _TEMPORARY),
        _folder("home", registry.home(), _HOME),
        _shared_memory(),
        _open_files(),
        _processors(),
        _memory(),
    ]


def _folder(check: str, folder: Path, wanted: float) -> Finding:
    """Return whether a folder, or the one that it would be made in, takes files, and how many."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    do = f"choose another: {_CHOOSE[check]}"
    if not there.is_dir():
        return Finding(check, "problem", f"{there} is no folder", do)
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


_CHOOSE = {"--out": "--out DIR", "TMPDIR": "set TMPDIR", "home": "set RAYGENOME_HOME"}


def _store(url: str) -> Finding:
    """Return whether an object store takes files: one is made and removed."""
    name = f".raygenome-doctor-{uuid.uuid4().hex}"
    try:
        bucket = Bucket(url).without_retries()
        new = _folders_to_come(bucket)
        bucket.put(b"x", name)
        bucket.remove(name)
        _remove_folders(bucket, new)
    except StoreError as error:
        do = "see that the bucket exists, and your credentials and rights there"
        return Finding("--out", "problem", f"{url} cannot be written to: {error.why}", do)
    except (RaygenomeError, OSError) as error:
        return failed("--out", error, "see your credentials and rights there")
    return Finding("--out", "ok", f"{url} can be written to")


def _folders_to_come(bucket: Bucket) -> list[str]:
    """Return the paths of what is no folder yet, from the place up; of which pyarrow makes some."""
    path = PurePosixPath(bucket.path())
    folders = [str(folder) for folder in (path, *path.parents)][:-2]  # less the bucket, and "."
    with contextlib.suppress(OSError):  # no right to ask
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
                return  # a run has begun there meanwhile
            with contextlib.suppress(FileNotFoundError):
                bucket.filesystem.delete_dir(folder)


def _shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return Finding("shared memory", "skipped", f"there is no {folder} here")
    found = f"{size(usage.free)} free of {size(usage.total)} in {folder}"
    if usage.free < _SHARED:
        do = f"{size(_SHARED)} is little for Ray; a container gets more with --shm-size=1g"
        return Finding("shared memory", "note", found, do)
    return Finding("shared memory", "ok", found)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"{soft:,}"
    if unlimited or soft >= _OPEN_FILES:
        return Finding("open files", "ok", found)
    do = f"a Ray head with many workers needs {_OPEN_FILES:,} and more: ulimit -n 65536"
    return Finding("open files", "note", f"{found} (hard limit {hard:,})", do)


def _processors() -> Finding:
    count, share = cores(), cgroup_cpus()
    if share < count:
        found = f"{count} cores, of which the container may use {share:g}"
        do = f"more workers than that slow each other down: --workers {max(1, int(share))}"
        return Finding("cores", "note", found, do)
    return Finding("cores", "ok", str(count))


def _memory() -> Finding:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_memory()
    usable = min(there, limit)
    found = size(usable) + (f" of {size(there)}, by the container's limit" if limit < there else "")
    if usable < _MEMORY:
        do = f"{size(_MEMORY)} is what one worker with DeepSEA and the planning take"
        return Finding("memory", "note", found, do)
    return Finding("memory", "ok", found)


def cgroup_cpus(root: Path = Path("/")) -> float:
    """Return how many cores' time this process may use by its control group; infinity for all."""
    limits = [math.inf]
    for text in _cgroup_files(root, "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            limits.append(int(quota) / int(period))
    return min(limits)


def cgroup_memory(root: Path = Path("/")) -> float:
    """Return the bytes that this process may use by its control group; infinity for all."""
    limits = [text for text in _cgroup_files(root, "memory.max") if text != "max"]
    return min(map(float, limits), default=math.inf)


def _cgroup_files(root: Path, name: str) -> Iterator[str]:
    """Yield what a file holds in this process' control group and in those around it (version 2)."""
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
