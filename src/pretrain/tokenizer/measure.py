"""How well a tokenizer fits a text."""

from collections.abc import Iterable
from dataclasses import dataclass

from pretrain.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fertility:
    """Sizes of one text in UTF-8 bytes, words (between white space) and tokens."""

    bytes: int
    words: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """More is better: longer text in the same context."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Fertility (Rust et al. 2021, arXiv 2012.15613); 1 is a vocabulary that knows every word."""
        return self.tokens / max(self.words, 1)


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> Fertility:
    """Counts over texts, a text at a time."""
    size, words, tokens = 0, 0, 0
    for text in texts:
        size, words, tokens = size + len(text.encode()), words + len(text.split()), tokens + len(tokenizer.encode(text))
    return Fertility(size, words, tokens)
