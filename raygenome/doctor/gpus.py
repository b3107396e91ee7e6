"""Whether GPU, driver and torch work together."""

import shutil
import subprocess
from typing import NamedTuple

from raygenome.doctor.finding import Finding
from raygenome.doctor.versions import is_older

#: Seconds that nvidia-smi may take; it hangs if a GPU has fallen off the bus.
_TIMEOUT_S = 20.0

#: The oldest Linux driver for a CUDA release, by the release's major version.
_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

_CUDA_TORCH = "pip install --force-reinstall torch (PyPI's Linux build is for CUDA)"


class Gpu(NamedTuple):
    """A GPU as the driver describes it."""

    name: str
    driver: str
    capability: str
    memory: str


class Torch(NamedTuple):
    """What torch reports about CUDA.

    Attributes:
        cuda: the release that it was built for; None for a CPU build.
        available: whether it finds a usable GPU.
        archs: the GPUs that its kernels were built for, such as sm_90, or compute_90 for code that
            newer GPUs compile.
    """

    cuda: str | None
    available: bool
    archs: tuple[str, ...]


def check_gpus(torch: Torch | None = None, *, timeout_s: float = _TIMEOUT_S) -> list[Finding]:
    """Return whether there are GPUs, and whether torch can use them.

    Args:
        torch: what torch reports; None asks it.
        timeout_s: seconds that nvidia-smi may take.
    """
    found = gpus(timeout_s)
    if isinstance(found, Finding):
        return [found]
    torch = torch or ask_torch()
    if not found:
        built = f"built for CUDA {torch.cuda}" if torch.cuda else "a CPU build"
        return [Finding("GPU", "ok", f"none: models run on the CPU (torch is {built})")]
    findings = [
        Finding("GPU", "ok", f"{gpu.name}, {gpu.memory}, compute capability {gpu.capability}")
        for gpu in found
    ]
    return [*findings, _torch_fits(found, torch)]


def gpus(timeout_s: float) -> list[Gpu] | Finding:
    """Return the GPUs that nvidia-smi lists, or a finding if they are not known."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    names = "name,driver_version,compute_cap,memory.total"
    try:
        done = subprocess.run(
            [program, f"--query-gpu={names}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"nvidia-smi did not answer within {timeout_s:.0f} s"
        return Finding("GPU", "problem", found, "see dmesg for NVRM or Xid; restart the machine")
    except OSError as error:
        return Finding("GPU", "problem", f"{program}: {error.strerror}", "reinstall the driver")
    if done.returncode:
        message = " ".join((done.stdout or done.stderr).split())[:200]
        if "No devices were found" in message:
            return []
        do = "reinstall the NVIDIA driver, or load it: modprobe nvidia"
        return Finding("GPU", "problem", f"nvidia-smi failed: {message}", do)
    lines = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [Gpu(*map(str.strip, line)) for line in lines if len(line) == len(Gpu._fields)]


def ask_torch() -> Torch:
    """Ask torch about CUDA."""
    import warnings

    import torch

    with warnings.catch_warnings():  # about an old driver, which is reported below
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    archs = tuple(torch.cuda.get_arch_list()) if available else ()
    return Torch(torch.version.cuda, available, archs)


def _torch_fits(found: list[Gpu], torch: Torch) -> Finding:
    """Return whether torch can use the GPUs."""
    if torch.cuda is None:
        built = "there is a GPU, but torch was built without CUDA"
        return Finding("torch and GPU", "problem", built, _CUDA_TORCH)
    driver = found[0].driver
    needed = _DRIVERS.get(int(torch.cuda.partition(".")[0]))
    if needed and is_older(driver, needed):
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
            f"torch for CUDA {torch.cuda} finds no usable GPU; driver {driver} lists {len(found)}",
            "check CUDA_VISIBLE_DEVICES, and that the container has the GPU; "
            'python -c "import torch; torch.cuda.init()" shows the error',
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
    """Return whether kernels for `archs` run on a GPU with a compute capability such as "9.0".

    Kernels for sm_80 run on 8.0 to 8.9; compute_80 is compiled for every GPU from 8.0.
    """
    major, _, minor = capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return True  # unknown
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
