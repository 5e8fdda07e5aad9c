"""[tokens]: how tokens lie on disk and in rows, or where they already lie."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import count, size
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Tokens:
    """[tokens]: shards, and the row that the order of a run counts in."""

    row: int | None = key(
        "tokens in a row, a multiple of train.sequence (as long as it, if not said)", None, unit=count
    )
    packing: Literal["contiguous", "padding_free", "best_fit"] = key(
        "what a row holds: running text; the same with its documents apart (positions start anew in each); or documents"
        " cut as little as can be, and padding. The last two need train.mask = documents",
        "contiguous",
    )
    shard_tokens: int = key("tokens in a shard file", 64 * 2**20, unit=count, at_least=1024)
    from_: str | None = key(
        "instead of a corpus: a folder or URL of shards (ours, Megatron-LM's, flat .bin files), or of such folders, one"
        " a source",
        None,
        path=True,
    )
    dtype: Literal["uint16", "uint32"] = key("of the ids in flat .bin files", "uint16")
    cache_bytes: int = key("shards of an object store that are kept here, the last used ones", 2**36, unit=size)
