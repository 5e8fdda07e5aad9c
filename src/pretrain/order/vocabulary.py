"""From a tokenizer to what objectives need to know of it."""

import json
import unicodedata

import numpy as np

from pretrain.order.batch import Vocabulary
from pretrain.tokenizer.tokenizer import Tokenizer

MASKS = ("<|mask|>", "[MASK]", "<mask>")  # what tokenizers call it: ours, BERT's, RoBERTa's
FIM = (  # prefix, suffix, middle: ours and Qwen's, StarCoder's, Code Llama's
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)


def vocabulary(tokenizer: Tokenizer, size: int | None = None) -> Vocabulary:
    """What objectives need to know; ids up to `size` that the tokenizer does not have count as specials."""
    size = tokenizer.vocab_size if size is None else size
    pieces = [None if i in tokenizer.specials else tokenizer.inner.id_to_token(i) for i in range(size)]
    fim = [tuple(tokenizer.id(name) for name in names) for names in FIM]
    return Vocabulary(
        size=size,
        end=tokenizer.end,
        mask=next((i for name in MASKS if (i := tokenizer.id(name)) is not None), None),
        specials=frozenset(i for i, piece in enumerate(pieces) if piece is None),
        fim=next(((a, b, c) for a, b, c in fim if a is not None and b is not None and c is not None), None),
        joins=_joins(tokenizer, pieces),
    )


def _joins(tokenizer: Tokenizer, pieces: list[str | None]) -> np.ndarray:
    """Where words lie, bool [2, size], from how each piece begins and ends.

    WordPiece says it: "##" goes on a word. Elsewhere a piece goes on a word where it begins, and the one before it
    ends, with a letter, digit, mark or underscore: byte-level pieces as their bytes read, a broken character as a
    letter; "▁" is none. Wide characters (Chinese, Japanese, Korean) are words by themselves.
    """
    table = json.loads(tokenizer.text)
    if table["model"]["type"] == "WordPiece":
        prefix = table["model"]["continuing_subword_prefix"]
        return np.array([[p is not None and p.startswith(prefix) for p in pieces], [p is not None for p in pieces]])
    byte_level = '"ByteLevel"' in json.dumps(table["decoder"])
    texts = []
    for i, piece in enumerate(pieces):
        texts.append(tokenizer.decode_bytes([i]).decode("utf-8", "replace") if piece and byte_level else piece or "")
    return np.array([[_in_word(text[:1]) for text in texts], [_in_word(text[-1:]) for text in texts]])


def _in_word(character: str) -> bool:
    if not character or unicodedata.east_asian_width(character) in "WF":
        return False
    return character.isalnum() or character in "_\N{REPLACEMENT CHARACTER}" or unicodedata.category(character)[0] == "M"
