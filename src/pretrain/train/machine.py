"""What this machine has and can do, measured."""

import os
import platform
import resource
import shutil
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path

import torch

from pretrain.base.errors import UserError
from pretrain.base.units import show_bytes

COMPILE_FROM_SECONDS = 600.0


def device() -> str:
    """Where training runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def matmul_flops_per_second(where: str, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of square matrix products: the best of several, since anything else on the machine only slows."""
    n = 8192 if where == "cuda" else 1024
    a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
    a @ b
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        if where == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def device_name(where: str) -> str:
    """What torch calls the accelerator, or the processor's architecture."""
    return torch.cuda.get_device_name() if where == "cuda" else platform.machine()


def vendor_flops_per_second(name: str, precision: str) -> float:
    """FLOP/s of dense products that a device's data sheet states, 0 where devices.toml has none."""
    table = tomllib.loads(Path(__file__).with_name("devices.toml").read_text())
    found: dict[str, float] = next((one for one in table["device"] if name.startswith(one["name"])), {})
    return float(found.get("fp8" if "fp8" in precision else "bf16" if "bf16" in precision else precision, 0.0))


def memory_bytes() -> int:
    """Memory of the machine, or of its accelerator."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def used_bytes() -> int:
    """The most memory that this process has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def disk_bytes_per_second(folder: Path, size: int = 2**26) -> tuple[float, float]:
    """Bytes a second (written and synced, read back) of a file in a folder; reading may come from a cache."""
    data = os.urandom(size)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        file.seek(0)
        file.read()
        return size / written, size / (time.perf_counter() - start)


def compiler_answer() -> tuple[bool, str]:
    """Whether torch.compile can work here, and a plain sentence that says why."""
    if torch.cuda.is_available():
        return True, "torch.compile makes CUDA kernels here"
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False, "torch.compile needs a C++ compiler, and there is none on the PATH (Debian: apt install g++)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return False, "torch.compile needs Python.h, which is not here (Debian: apt install python3-dev)"
    return True, "torch.compile has a C++ compiler here"


def compiles(asked: str, device: str, peak_seconds: float) -> tuple[bool, str]:
    """Whether to compile, and a sentence for the person if there is something to say.

    `peak_seconds`: what the run's arithmetic would take at the measured peak. On a CPU the compiler costs half a minute
    and saves 7 to 19 % of a step (benchmarks/compile.py): worth it only where the run is long. Raises UserError where
    it was asked for and cannot be had.
    """
    able, why = compiler_answer()
    if asked == "always" and not able:
        raise UserError(why, expected='a compiler, or train.compile = "auto"')
    if asked == "auto" and not able:
        return False, f"training runs uncompiled: {why}"
    if asked == "auto" and device == "cpu" and peak_seconds < COMPILE_FROM_SECONDS:
        return False, ""
    return asked != "never", "" if asked == "never" else "the first step takes longer: it is compiled"


def describe() -> str:
    """The machine in a line."""
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return f"{name}, {show_bytes(memory_bytes())}"
