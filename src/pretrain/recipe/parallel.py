"""[parallel]: how the ranks that a command was started on divide the work."""

from dataclasses import dataclass
from typing import Literal

from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Parallel:
    """[parallel]: pp · replicate · shard · cp · tp = ranks; what a step computes does not depend on it."""

    replicate: int = key("copies of the model, each in the memory of ranks of its own", 1, at_least=1)
    shard: int | None = key("ranks that one copy lies on between steps (FSDP): all that are left", None, at_least=1)
    cp: int = key("ranks that have a part of every sequence each, and the keys and values of all of it", 1, at_least=1)
    tp: int = key("ranks that divide each matrix, and the sequence between matrices", 1, at_least=1)
    ep: int = key("of the ranks of shard and cp, those that divide the experts of a layer among them", 1, at_least=1)
    pp: int = key("stages of the stack, each on ranks of its own, through which micro-batches pass", 1, at_least=1)
    schedule: Literal["1f1b", "interleaved", "zero_bubble"] = key(
        "the order of passes: one forward one backward, or so over several chunks a stage; zero_bubble is refused",
        "1f1b",
    )
    chunks: int = key("of the stack, that a stage has (interleaved)", 1, at_least=1)
