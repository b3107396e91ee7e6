"""Whether GPU, driver and torch fit each other."""

import shutil
import subprocess
from typing import NamedTuple

from raygenome.doctor.finding import Finding
from raygenome.doctor.versions import release

#: Seconds that nvidia-smi may take: with a GPU that has fallen off the bus it hangs.
_PATIENCE_S = 20.0

#: The oldest Linux driver that runs programs of a CUDA release, by the release's first number.
_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

_CUDA_TORCH = "pip install --force-reinstall torch (PyPI's Linux build is for CUDA)"


class Gpu(NamedTuple):
    """A GPU as the driver tells of it."""

    name: str
    driver: str
    capability: str
    memory: str


class Torch(NamedTuple):
    """What torch says of CUDA.

    Attributes:
        cuda: release that it was built for; None for a build without.
        available: whether it finds a GPU that it can use.
        archs: what its kernels were built for, such as sm_90, or compute_90 for code that newer
            GPUs compile.
    """

    cuda: str | None
    available: bool
    archs: tuple[str, ...]


def check_gpus() -> list[Finding]:
    """Return whether there are GPUs, and whether torch can use them."""
    found = gpus()
    if isinstance(found, Finding):
        return [found]
    torch = ask_torch()
    if not found:
        built = f"built for CUDA {torch.cuda}" if torch.cuda else "a CPU build"
        return [Finding("GPU", "ok", f"none: models run on the CPU (torch is {built})")]
    findings = [
        Finding("GPU", "ok", f"{gpu.name}, {gpu.memory}, compute capability {gpu.capability}")
        for gpu in found
    ]
    return [*findings, _torch_fits(found, torch)]


def gpus() -> list[Gpu] | Finding:
    """Return the GPUs of this machine as nvidia-smi lists them; or why they are not known."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    names = "name,driver_version,compute_cap,memory.total"
    try:
        done = subprocess.run(
            [program, f"--query-gpu={names}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        said = f"nvidia-smi did not answer within {_PATIENCE_S:.0f} s"
        return Finding("GPU", "problem", said, "see dmesg for NVRM or Xid; restart the machine")
    except OSError as error:
        return Finding("GPU", "problem", f"{program}: {error.strerror}", "mend the driver")
    if done.returncode:
        said = " ".join((done.stdout or done.stderr).split())[:200]
        if "No devices were found" in said:
            return []
        do = "install the NVIDIA driver anew, or load it: modprobe nvidia"
        return Finding("GPU", "problem", f"nvidia-smi failed: {said}", do)
    lines = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [Gpu(*map(str.strip, line)) for line in lines if len(line) == len(Gpu._fields)]


def ask_torch() -> Torch:
    """Return what torch says of CUDA."""
    import warnings

    import torch

    with warnings.catch_warnings():  # of a driver too old: that is said in our own words
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    archs = tuple(torch.cuda.get_arch_list()) if available else ()
    return Torch(torch.version.cuda, available, archs)


def _torch_fits(found: list[Gpu], torch: Torch) -> Finding:
    """Return whether torch can use the GPUs that there are."""
    if torch.cuda is None:
        built = "torch is a build without CUDA, and there is a GPU"
        return Finding("torch and GPU", "problem", built, _CUDA_TORCH)
    driver = found[0].driver
    needed = _DRIVERS.get(release(torch.cuda)[0])
    if needed and release(driver) < release(needed):
        return Finding(
            "torch and GPU",
            "problem",
            f"driver {driver} is too old for torch, which was built for CUDA {torch.cuda}",
            f"install driver {needed} or newer, or a torch for an older CUDA "
            "(https://pytorch.org/get-started)",
        )
    if not torch.available:
        return Finding(
            "torch and GPU",
            "problem",
            f"torch for CUDA {torch.cuda} finds no GPU it can use; driver {driver} lists "
            f"{len(found)}",
            "is CUDA_VISIBLE_DEVICES empty, or the container without its GPU? "
            'python -c "import torch; torch.cuda.init()" says more',
        )
    for gpu in found:
        if not _has_kernels(gpu.capability, torch.archs):
            return Finding(
                "torch and GPU",
                "problem",
                f"torch has no kernels for {gpu.name} (compute capability {gpu.capability}); it "
                f"has {' '.join(torch.archs)}",
                "install a torch that was built for it (https://pytorch.org/get-started)",
            )
    return Finding("torch and GPU", "ok", f"CUDA {torch.cuda} on driver {driver}")


def _has_kernels(capability: str, archs: tuple[str, ...]) -> bool:
    """Return whether kernels run on a GPU: of its own generation and not above it, or compiled.

    `capability` is such as "9.0"; sm_80 runs on 8.0 to 8.9, and compute_80 on all from 8.0.
    """
    major, _, minor = capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return True  # the driver does not say
    own = (int(major), int(minor))
    for arch in archs:
        kind, _, number = arch.partition("_")
        digits = "".join(letter for letter in number if letter.isdigit())  # sm_90a
        if len(digits) < 2:
            continue
        built = (int(digits[:-1]), int(digits[-1]))
        if built <= own and (kind == "compute" or built[0] == own[0]):
            return True
    return False
