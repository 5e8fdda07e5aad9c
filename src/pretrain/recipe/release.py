"""[release]: what others get."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import size
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Release:
    """[release]: a folder in the ecosystem's own format."""

    dtype: Literal["float32", "bfloat16", "float16"] = key("of the released weights", "float32")
    shard_bytes: int = key(
        "most bytes in a file of weights; more make several, and an index", 5 * 10**9, unit=size, at_least=1
    )
    license: str = key("of the released weights, for the card (an SPDX name, or other)", "other")
    description: str = key("a sentence for the card", "")
