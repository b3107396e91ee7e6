"""The I/O fault loop: each file operation of a run fails once, and the run must survive it.

    PYTHONPATH=tests python -m chaos.io_faults --all

For k = 1, 2, ..., the k-th file operation below the run's folder fails with ENOSPC, EIO or EACCES,
until a run has fewer than k operations. The command must end with a clean exit code and one line.
Committed files must be complete and correct. When the advice of the line is followed, the result
must equal an undisturbed run byte by byte. This is checked for a new run, for a resumed one, and
for one that overwrites another. `io_faults.c`, loaded in front of libc, makes operations fail. Each
run is a fork of one process that has imported everything.
"""

import argparse
import contextlib
import ctypes
import errno
import gc
import itertools
import json
import mmap
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from support.builders import random_genome, random_records, write_fasta, write_model, write_vcf
from support.io_checks import committed_wrongly, finished_wrongly
from support.paths import PYTHON_PATHS

import raygenome
import raygenome.cli
from raygenome.scoring.shard import Scorer

KINDS = (
    "open", "create", "read", "write", "flush", "rename", "mkdir", "remove", "resize", "close",
)  # fmt: skip
#: The operations that fail on a full disk.
GROWING = ("create", "write", "flush", "mkdir", "resize")
CHANGING = tuple(kind for kind in KINDS if kind != "read")
#: Stands for an errno: only half of the bytes are written.
SHORT = 0
NEVER = 2**62
#: In a run whose folder is not empty, one k in this many is tried, unless all are.
SPARSE = 13

#: A run takes a fraction of a second; after this many seconds it counts as hung.
DEADLINE_S = 10
GENOME = random_genome(5, chr1=900, chr2=700, chrX=500)
STUB = {"window": 30, "targets": 2, "channels": [4], "kernels": [5], "pools": [3], "hidden": [4]}


class Fault(ctypes.Structure):
    """Which operation fails, and how: `struct fault`."""

    _fields_ = (
        ("kinds", ctypes.c_uint),
        ("at", ctypes.c_long),
        ("error", ctypes.c_int),
        ("later", ctypes.c_uint),
    )


class Report(ctypes.Structure):
    """The operations that the process did: `struct report`."""

    _fields_ = (
        ("seen", ctypes.c_long * len(KINDS)),
        ("counted", ctypes.c_long),
        ("failed", ctypes.c_long),
        ("kind", ctypes.c_long),
        ("path", ctypes.c_char * 4096),
    )


class Way(NamedTuple):
    """A way of failing: the kinds of operations, the errno, and the kinds that fail afterwards."""

    kinds: tuple[str, ...]
    error: int
    #: The kinds that keep failing afterwards.
    later: tuple[str, ...] = ()

    def fault(self, k: int) -> Fault:
        """Return the fault of the k-th operation."""
        return Fault(_bits(self.kinds), k, self.error, _bits(self.later))

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, "half a write")
        return f"{name} from there on" if self.later else name


def _bits(kinds: tuple[str, ...]) -> int:
    return sum(1 << KINDS.index(kind) for kind in kinds)


#: The kinds of operations that are counted and fail, unless everything is tried.
USUAL = tuple(kind for kind in CHANGING if kind != "close")
#: Used in turn: a disk that stays full, a disk that fails once, a permission that is missing once.
TURNS = (
    Way(USUAL, errno.ENOSPC, later=GROWING),
    Way(USUAL, errno.EIO),
    Way(USUAL, errno.EACCES),
)
#: All ways that `--all` tries.
WAYS = (
    *(Way(CHANGING, error) for error in (errno.ENOSPC, errno.EIO, errno.EACCES)),
    Way(CHANGING, errno.ENOSPC, later=GROWING),
    Way(CHANGING, errno.EIO, later=GROWING),
    Way(("write",), SHORT),
    Way(("read",), errno.EIO),
)


@dataclass(frozen=True)
class Scene:
    """A command line, and the content of the run's folder before it."""

    name: str
    words: tuple[str, ...]
    before: Path | None = None


class Ended(NamedTuple):
    """How a command ended, and its output."""

    code: int
    output: str
    report: Report

    @property
    def hit(self) -> str:
        """Where the first failure was: "rename run.json"."""
        name = Path(self.report.path.decode()).name
        name = re.sub(r"\.[0-9a-f]{32}.*", "", name)
        return f"{KINDS[self.report.kind]} {name}"


@dataclass
class Found:
    """The results of all cases.

    Attributes:
        cases: number of cases.
        seconds: their duration.
        operations: number of operations by kind, in an undisturbed run of each scene.
        ways: number of cases of each way of failing.
        codes: number of cases with each exit code.
        hits: number of failures of each kind of operation on each file.
        wrong: one text per case that went wrong.
    """

    cases: int = 0
    seconds: float = 0.0
    operations: dict[str, dict[str, int]] = field(default_factory=dict)
    ways: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Add the results of another process."""
        self.cases += other.cases
        self.operations |= other.operations
        self.ways.update(other.ways)
        self.codes.update(other.codes)
        self.hits.update(other.hits)
        self.wrong += other.wrong


def main() -> None:
    """Run the loop, print the results as JSON, and exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="try each k in each way; takes hours")
    parser.add_argument("--stride", type=int, default=1, help="try one in STRIDE operations")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="processes to use")
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="io-faults-") as folder:
        if options.share is None:
            found = run_loop(
                Path(folder),
                everything=options.all,
                stride=options.stride,
                processes=options.processes,
            )
        else:
            loop = Loop(Path(folder), options.share, options.processes)
            found = loop.run(everything=options.all, stride=options.stride)
    print(json.dumps(vars(found), indent=1))
    sys.exit(1 if found.wrong else 0)


def compiler() -> str | None:
    """Return the C compiler of this machine, if it has one."""
    return shutil.which("cc") or shutil.which("gcc")


def run_loop(
    folder: Path, *, everything: bool = False, stride: int = 1, processes: int = 2
) -> Found:
    """Build the library that fails in `folder`, and run the loop in new processes that load it.

    In a fresh run one k in `stride` is tried, from a random start, so that in time all are tried.
    """
    began = time.monotonic()
    library = folder / "io_faults.so"
    source = Path(__file__).with_suffix(".c")
    flags = ["-O1", "-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([str(compiler()), *flags, "-o", library, source, "-ldl"], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "OMP_NUM_THREADS": "1",  # a fork has only the thread that forked
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, PYTHON_PATHS)),
    }
    words = [
        sys.executable,
        "-m",
        "chaos.io_faults",
        "--stride",
        str(stride),
        *(["--all"] if everything else []),
    ]
    shares = [
        subprocess.Popen(
            [*words, "--processes", str(processes), "--share", str(share)],
            env={**environment, "RAYGENOME_HOME": str(folder / f"home-{share}")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for share in range(processes)
    ]
    found = Found()
    try:
        for share in shares:
            found.add(Found(**json.loads(share.communicate()[0])))
    finally:
        for share in shares:
            share.kill()
    found.seconds = round(time.monotonic() - began, 1)
    return found


class Loop:
    """Fails one operation after the other, in `folder`: the k-th with k = share + 1 modulo `of`."""

    def __init__(self, folder: Path, share: int, of: int) -> None:
        self._first, self._step = share + 1, of
        self._folder = folder.resolve()
        self._out = self._folder / "run"
        self._output = self._folder / "output"
        self._library = ctypes.CDLL(None)
        self._library.faults_arm.argtypes = (ctypes.c_char_p, Fault, ctypes.c_void_p)
        self._shared = mmap.mmap(-1, ctypes.sizeof(Report))
        self._report = Report.from_buffer(self._shared)
        self._found = Found()
        self._scenes = self._make_scenes()

    def run(self, *, everything: bool, stride: int) -> Found:
        """Run all scenes; see the module."""
        with contextlib.redirect_stdout(sys.stderr):
            raygenome.cli.run(["score", *self._scenes[0].words])  # this imports everything
        gc.freeze()  # otherwise the garbage collector of each fork would copy pages
        for scene in self._scenes:
            seen = self._begin(scene, Fault(at=NEVER)).report.seen
            self._found.operations[scene.name] = dict(zip(KINDS, seen, strict=True))
            for ways in [(way,) for way in WAYS] if everything else [TURNS]:
                few = scene.before is not None and not everything
                self._every(scene, ways, max(SPARSE, 3 * stride) if few else stride)
        return self._found

    def _every(self, scene: Scene, ways: tuple[Way, ...], stride: int) -> None:
        """Let the k-th operation fail for every k, or one in `stride`, in these ways by turns."""
        first = self._first + self._step * random.randrange(stride)
        for k in itertools.count(first, self._step * stride):
            way = ways[k % len(ways)]
            ended = self._begin(scene, way.fault(k))
            if not ended.report.failed:
                return
            self._found.cases += 1
            self._found.ways[str(way)] += 1
            self._found.codes[str(ended.code)] += 1
            self._found.hits[ended.hit] += 1
            if problems := self._problems(scene, way, ended):
                what = f"{scene.name}: k = {k}, {way} at {ended.hit}: code {ended.code}"
                self._found.wrong.append("\n".join([what, *problems, ended.output]))

    def _problems(self, scene: Scene, way: Way, ended: Ended) -> list[str]:
        """Return all problems, now and after following the advice of the command."""
        problems = [*said_wrongly(ended, way), *committed_wrongly(self._out, self._right)]
        if ended.code == 0:
            problems += finished_wrongly(self._out, self._right["stub"])
        words = advised(scene.words, ended)
        again = self._spawn(words)
        if again.code != 0:
            problems += [f"then {' '.join(words)} ends with {again.code}: {again.output}"]
        return [*problems, *finished_wrongly(self._out, self._right["stub"], swept=True)]

    def _begin(self, scene: Scene, fault: Fault) -> Ended:
        """Run the command of a scene from the scene's start state."""
        shutil.rmtree(self._out, ignore_errors=True)
        if scene.before is not None:
            shutil.copytree(scene.before, self._out)
        return self._spawn(scene.words, fault)

    def _spawn(self, words: Sequence[str], fault: Fault | None = None) -> Ended:
        """Run `raygenome score` in a fork, behind a fault if there is one."""
        ctypes.memset(ctypes.addressof(self._report), 0, ctypes.sizeof(Report))
        child = os.fork()
        if child == 0:
            self._be_command(words, fault)
        _, status = os.waitpid(child, 0)
        return Ended(
            os.waitstatus_to_exitcode(status),
            self._output.read_text(errors="replace").strip(),
            Report.from_buffer_copy(self._shared),
        )

    def _be_command(self, words: Sequence[str], fault: Fault | None) -> NoReturn:
        """Run a command line in this process, and exit."""
        code = 70
        try:
            output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            signal.alarm(DEADLINE_S)
            if fault is not None:
                arm = self._library.faults_arm
                arm(os.fsencode(self._out), fault, ctypes.addressof(self._report))
            sys.argv = ["raygenome", "score", *words]
            raygenome.cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 70
            gc.collect()  # this closes files left open, which may print errors
        except BaseException:  # noqa: BLE001 - as the interpreter does
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _make_scenes(self) -> list[Scene]:
        """Make the inputs and the start states of the scenes; keep the expected results."""
        records = random_records(GENOME, 60)
        records.insert(0, records.pop())  # so that planning has to sort
        vcf = write_vcf(self._folder / "v.vcf", records)
        fasta = write_fasta(self._folder / "genome.fa", GENOME)
        inputs = {"vcf": vcf, "fasta": fasta, "workers": 0}
        self._right = {}
        for seed, name in enumerate(("stub", "other")):
            model = write_model(self._folder / name, seed=seed, **STUB)
            whole = raygenome.score(**inputs, model=model, out=self._folder / f"{name}-whole")
            self._right[name] = whole.path
            with contextlib.suppress(KeyboardInterrupt), one_shard():
                raygenome.score(**inputs, model=model, out=self._folder / f"{name}-begun")
        given = ("--model", self._folder / "stub", "--fasta", fasta, "--workers", 0)
        words = tuple(map(str, (vcf, *given, "--out", self._out)))
        return [
            Scene("fresh", words),
            Scene("resumed", (*words, "--resume"), self._folder / "stub-begun"),
            Scene("replacing a begun run", (*words, "--overwrite"), self._folder / "other-begun"),
            Scene("replacing a whole run", (*words, "--overwrite"), self._folder / "other-whole"),
        ]


@contextlib.contextmanager
def one_shard() -> Iterator[None]:
    """Interrupt a run after its first shard is committed."""
    score_shard = Scorer.score_shard
    scored: list[Any] = []

    def interrupted(self: Scorer, shard: Any) -> dict[str, Any]:
        if scored:
            raise KeyboardInterrupt
        scored.append(shard)
        return score_shard(self, shard)

    Scorer.score_shard = interrupted
    try:
        yield
    finally:
        Scorer.score_shard = score_shard


def advised(words: tuple[str, ...], ended: Ended) -> tuple[str, ...]:
    """Return the command line that the last line of the output asks for."""
    if ended.code and "--resume" not in ended.output:
        return words
    return (*(word for word in words if word not in ("--overwrite", "--resume")), "--resume")


def said_wrongly(ended: Ended, way: Way) -> Iterator[str]:
    """Yield each problem in the exit code and the output of a command with a failed operation."""
    if ended.code not in ((0,) if way.error == SHORT else (0, 73, 74)):
        yield f"exit code {ended.code}"
    if ended.code == 73 and "cannot write to" not in ended.output:
        yield "exit code 73 is for an output that cannot be made"
    if "Traceback" in ended.output or "Exception ignored" in ended.output:
        yield "a traceback"
    last = ended.output.splitlines()[-1:]
    complaints = [line for line in ended.output.splitlines() if line.startswith("raygenome: ")]
    if ended.code and complaints != last:
        yield "only the last line may be an error message, and it must be one"


if __name__ == "__main__":
    main()
