"""[tokenizer]: how text becomes tokens."""

from dataclasses import dataclass
from typing import Literal

from pretrain.base.units import count, size
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Tokenizer:
    """[tokenizer]: trained on a sample of the training documents, or a published one taken over."""

    from_: str | None = key(
        "a tokenizer.json, tiktoken ranks or a SentencePiece model to take over as it is; the file, or its folder",
        None,
        path=True,
    )
    kind: Literal["bpe", "wordpiece", "characters"] = key(
        "byte-level BPE, BERT's WordPiece, or one token a character seen", "bpe"
    )
    vocab_size: int = key("tokens in all, reserved ones included (bpe, wordpiece)", 32768, unit=count, at_least=257)
    multiple: int = key("vocab_size is rounded up to a multiple of this: 128 suits GPUs", 1, at_least=1)
    split: Literal["gpt2", "llama3", "o200k"] = key(
        "published pattern that splits text before merges (bpe, and tiktoken ranks that are taken over)", "llama3"
    )
    digits: Literal["pattern", 1, 2, 3] = key("most digits in a piece, or as the pattern says", "pattern")
    lowercase: bool = key("letters become small and lose their accents, as in BERT's uncased models (wordpiece)", False)
    byte_fallback: bool = key("a character never seen is its UTF-8 bytes, not one unknown (characters)", False)
    specials: tuple[str, ...] = key("special tokens of your own, among the reserved; after the ranks taken over", ())
    sample_bytes: int = key(
        "bytes of text it is trained on, drawn by the seed, by the weights of the sources",
        100_000_000,
        unit=size,
        at_least=1,
    )
    reserved: int = key("ids at the end for roles, tools and media to come", 256, at_least=1, at_most=4096)

    @property
    def ids(self) -> int:
        """Ids of a vocabulary that is trained, rounded up (bpe, wordpiece)."""
        return -(-self.vocab_size // self.multiple) * self.multiple
