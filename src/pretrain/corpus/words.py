"""Words as 64-bit hashes: what shingles, repetitions and n-gram indexes are made of."""

import re
from collections.abc import Sequence

import numpy as np
import xxhash

from pretrain.base.random import splitmix

FORMULA = re.compile(r"\$\$?[^$]{1,4000}\$\$?")  # as readers and extractors write one


def hashes(words: Sequence[str]) -> np.ndarray:
    """uint64 [words]; a word that stands twice is hashed once."""
    known: dict[str, int] = {}
    digest = xxhash.xxh3_64_intdigest
    for word in words:
        if word not in known:
            known[word] = digest(word.encode("utf-8", "surrogatepass"))
    return np.array([known[word] for word in words], np.uint64)


def runs(keys: np.ndarray, length: int) -> np.ndarray:
    """Hashes of all runs of `length` words, uint64 [words - length + 1]; none where there are fewer words."""
    count = max(len(keys) - length + 1, 0)
    out = np.zeros(count, np.uint64)
    for i in range(length if count else 0):
        out = splitmix(out ^ keys[i : i + count])
    return out


def has_letter(word: str) -> bool:
    """Whether a word has a letter in it."""
    return word.isalpha() or any(map(str.isalpha, word))
