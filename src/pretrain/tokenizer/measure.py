"""How well a tokenizer fits a text: fertility by language and source, tokens never used, what its vocabulary holds."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pretrain.tokenizer.tokenizer import Tokenizer

RARE = 10  # times that a token must be seen, or it is called under-trained
TOGETHER = 256  # texts encoded in one call
KINDS = ("words", "letters", "digits", "signs", "spaces", "mixed", "parts of characters", "single bytes", "specials")


@dataclass(frozen=True)
class Text:
    """A text to measure on, and where it comes from."""

    source: str
    language: str
    text: str


@dataclass(frozen=True)
class Fertility:
    """Sizes of some texts in UTF-8 bytes, words (between white space) and tokens."""

    bytes: int = 0
    words: int = 0
    tokens: int = 0

    def __add__(self, other: "Fertility") -> "Fertility":
        return Fertility(self.bytes + other.bytes, self.words + other.words, self.tokens + other.tokens)

    @property
    def bytes_per_token(self) -> float:
        """More is better: longer text in the same context."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Fertility (Rust et al. 2021, arXiv 2012.15613); 1 is a vocabulary that knows every word."""
        return self.tokens / max(self.words, 1)


@dataclass
class Use:
    """What a tokenizer made of texts; `counts` [vocab] says how often each id came."""

    counts: np.ndarray
    languages: dict[str, Fertility] = field(default_factory=dict)
    sources: dict[str, Fertility] = field(default_factory=dict)

    @property
    def total(self) -> Fertility:
        """Over all texts."""
        return sum(self.sources.values(), Fertility())

    def unused(self, specials: Iterable[int]) -> list[int]:
        """Ids that no text came to, specials aside."""
        return self._seen(0, 0, specials)

    def rare(self, specials: Iterable[int]) -> list[int]:
        """Ids seen, but fewer than `RARE` times: their vectors learn next to nothing (Land & Bartolo 2024)."""
        return self._seen(1, RARE - 1, specials)

    def _seen(self, least: int, most: int, specials: Iterable[int]) -> list[int]:
        found = (self.counts >= least) & (self.counts <= most)
        found[[i for i in specials if i < len(found)]] = False
        return np.flatnonzero(found).tolist()


def measure(tokenizer: Tokenizer, texts: Iterable[Text]) -> Use:
    """Counts over texts, some at a time."""
    use = Use(np.zeros(tokenizer.vocab_size, np.int64))
    for some in _batches(texts):
        for one, ids in zip(some, tokenizer.encode_batch([one.text for one in some]), strict=True):
            use.counts += np.bincount(ids, minlength=len(use.counts))
            size = Fertility(len(one.text.encode()), len(one.text.split()), len(ids))
            use.languages[one.language] = use.languages.get(one.language, Fertility()) + size
            use.sources[one.source] = use.sources.get(one.source, Fertility()) + size
    return use


def makeup(tokenizer: Tokenizer) -> Counter[str]:
    """How many ids are of each of `KINDS`."""
    return Counter("specials" if i in tokenizer.specials else kind(piece) for i, piece in enumerate(tokenizer.pieces))


def kind(piece: bytes) -> str:
    """What a token stands for: words begin with a space, letters go on; signs are all that is neither."""
    if len(piece) == 1:
        return "single bytes"
    if not _is_text(piece):
        return "parts of characters"
    text = piece.decode()
    inside = text.strip()
    if not inside:
        return "spaces"
    letters = {unicodedata.category(letter)[0] for letter in inside}
    if letters <= {"L", "M"}:
        return "words" if text[0] == " " else "letters"
    if letters == {"N"}:
        return "digits"
    return "signs" if letters <= {"P", "S"} else "mixed"


def scripts(tokenizer: Tokenizer) -> Counter[str]:
    """How many tokens are written in each script, by the Unicode name of their first letter."""
    out = Counter[str]()
    for i, piece in enumerate(tokenizer.pieces):
        letters = [one for one in piece.decode("utf-8", "replace") if one.isalpha()]
        if letters and _is_text(piece) and i not in tokenizer.specials:
            out[unicodedata.name(letters[0], "other").split()[0].capitalize()] += 1
    return out


def unreachable(tokenizer: Tokenizer) -> list[int]:
    """Ids of a byte-level vocabulary that no text becomes, since their own text becomes others; of the rest, none."""
    if "ByteLevel" not in tokenizer.decoders:
        return []
    texts = {i: piece.decode() for i, piece in enumerate(tokenizer.pieces) if piece and _is_text(piece)}
    encoded = zip(texts, tokenizer.encode_batch(list(texts.values())), strict=True)
    return [i for i, ids in encoded if ids.tolist() != [i]]


def shown(tokenizer: Tokenizer, token: int) -> str:
    """A token for people: its text, or its bytes where they are no text."""
    piece = tokenizer.pieces[token]
    return repr(piece.decode()) if _is_text(piece) else piece.hex(" ")


def _is_text(piece: bytes) -> bool:
    return "\N{REPLACEMENT CHARACTER}" not in piece.decode("utf-8", "replace")


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    rest = iter(texts)
    while some := list(islice(rest, TOGETHER)):
        yield some
