"""[run]: what the run is called and what it may use."""

from dataclasses import dataclass
from typing import Literal

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
