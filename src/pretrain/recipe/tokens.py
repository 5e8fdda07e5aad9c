"""[tokens]: how tokens lie on disk."""

from dataclasses import dataclass

from pretrain.base.units import count
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Tokens:
    """[tokens]: shards, and the row that the order of a run counts in."""

    row: int | None = key(
        "tokens in a row, a multiple of train.sequence (as long as it, if not said)", None, unit=count
    )
    shard_tokens: int = key("tokens in a shard file", 64 * 2**20, unit=count, at_least=1024)
