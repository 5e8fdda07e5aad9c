"""[tokenizer]: how text becomes tokens."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import count, size
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Tokenizer:
    """[tokenizer]: trained on a sample of the training documents, or taken from a folder."""

    from_: str | None = key("a folder with a tokenizer.json to take over as it is", None, path=True)
    kind: Literal["bpe", "characters"] = key("byte-level BPE, or one token a character seen", "bpe")
    vocab_size: int = key("tokens in all, reserved ones included (bpe)", 32768, unit=count, at_least=257)
    split: Literal["gpt2", "llama3"] = key("published pattern that splits text before merges are learned", "llama3")
    sample_bytes: int = key("bytes of text it is trained on, drawn by the seed", 100_000_000, unit=size, at_least=1)
    reserved: int = key("ids at the end for roles, tools and media to come", 256, at_least=1, at_most=4096)
