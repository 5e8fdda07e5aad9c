"""[run]: what the run is called and what it may use."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import seconds
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Run:
    """[run]: name and seed; all randomness comes from the seed and the position in the run."""

    name: str = key("its folder under runs/")
    seed: int = key("of everything that is drawn", 0, at_least=0)
    threads: int | None = key(
        "threads for arithmetic (one a core, if not said); another number changes the last bits", None, at_least=1
    )
    health: Literal["check", "stop", "skip"] = key(
        "before several ranks train: measure their devices, and say which is slow; stop for it; or neither (one that "
        "computes wrongly always stops)",
        "check",
    )
    checkpoints: str | None = key(
        "a folder or URL (s3://bucket/folder) where checkpoints lie, those of each run under its name; the run's own, "
        "if not said",
        None,
        path=True,
    )
    restarts: int = key(
        "how often in a row ranks that fail are started again, with nothing saved in between", 3, at_least=0
    )
    hang: float | None = key(
        "seconds without a step after which ranks count as hung, once one was taken: 20 usual steps, and 2 minutes or "
        "more, if not said",
        None,
        unit=seconds,
        at_least=1,
    )
    notice: float = key(
        "from a signal to stop to the end, if need be in mid-step: time to save", 60.0, unit=seconds, at_least=1
    )
