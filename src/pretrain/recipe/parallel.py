"""[parallel]: how the ranks that a command was started on divide the work."""

from dataclasses import dataclass

from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Parallel:
    """[parallel]: replicate · shard · cp · tp = ranks; what a step computes does not depend on it."""

    replicate: int = key("copies of the model, each in the memory of ranks of its own", 1, at_least=1)
    shard: int | None = key("ranks that one copy lies on between steps (FSDP): all that are left", None, at_least=1)
    cp: int = key("ranks that have a part of every sequence each, and the keys and values of all of it", 1, at_least=1)
    tp: int = key("ranks that divide each matrix, and the sequence between matrices", 1, at_least=1)
