"""Joules that the machine's own counters report: a GPU's by NVML, a CPU's packages by RAPL (powercap)."""

from collections.abc import Callable, Sequence
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Joules since they were last read, of the counters that this process answers for; None where there is none."""

    def __init__(self, counters: Sequence[Callable[[], float]]) -> None:
        self._counters = counters
        self._before = [counter() for counter in counters]

    @property
    def there(self) -> bool:
        """Whether anything is measured."""
        return bool(self._counters)

    def read(self) -> float | None:
        """Counters only rise."""
        if not self._counters:
            return None
        now = [counter() for counter in self._counters]
        joules = sum(b - a for a, b in zip(self._before, now, strict=True))
        self._before = now
        return joules


def counters(device: str, *, first_here: bool) -> list[Callable[[], float]]:
    """A process's GPU, and the packages of its machine where it is the first process there."""
    return [*(gpu() if device == "cuda" else []), *(packages(POWERCAP) if first_here else [])]


def gpu() -> list[Callable[[], float]]:
    """Joules of this process's GPU since its driver was loaded, where NVML's Python names are installed."""
    try:
        import pynvml  # torch asks it too
        import torch

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties('cuda').uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return []
    except Exception as error:  # pynvml's own, which are no built-in
        if type(error).__module__.partition(".")[0] != "pynvml":
            raise
        return []
    return [lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000]


def packages(folder: Path) -> list[Callable[[], float]]:
    """Joules of each CPU package since the first reading; a counter that has come round is seen to have."""
    return [Package(zone) for zone in sorted(folder.glob("intel-rapl:[0-9]*")) if _readable(zone / "energy_uj")]


class Package:
    """A counter of microjoules that begins again at its range."""

    def __init__(self, zone: Path) -> None:
        self._zone, self._range = zone, int((zone / "max_energy_range_uj").read_text())
        self._last, self._sum = self._now(), 0

    def __call__(self) -> float:
        """Joules."""
        now = self._now()
        self._sum += (now - self._last) % self._range
        self._last = now
        return self._sum / 1e6

    def _now(self) -> int:
        return int((self._zone / "energy_uj").read_text())


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return ":" not in path.parent.name.partition(":")[2]  # a package, not a part of one
