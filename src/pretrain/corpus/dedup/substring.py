"""Repeated runs of words (Lee et al. 2022, arXiv 2107.06499, 4.1), found by hashes of all windows of their length."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xxhash

from pretrain.base.random import splitmix
from pretrain.corpus.document import WORD, Document
from pretrain.recipe.schema import key

VERSION = 2


@dataclass(frozen=True)
class Substring:
    """Takes out every run of `words` words that stood in the corpus before, the rest of a longer run with it."""

    reason: ClassVar[str] = "nothing left"
    most: int = key("times that a run may stand in the corpus", 1, at_least=1)
    words: int = key("of a run", 50, at_least=1)

    def pieces(self, document: Document) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all windows, uint64 [windows, 2], and their spans."""
        found = list(WORD.finditer(document.text))
        if len(found) < self.words:
            return np.zeros((0, 2), np.uint64), np.zeros((0, 2), np.int64)
        words = np.array([xxhash.xxh3_64_intdigest(match[0].encode()) for match in found], np.uint64)
        count = len(words) - self.words + 1
        windows = np.zeros((count, 2), np.uint64)
        for i in range(self.words):
            windows = splitmix(windows ^ words[i : i + count, None] + np.array([0, i + 1], np.uint64))
        starts = np.array([match.start() for match in found[:count]])
        stops = np.array([match.end() for match in found[self.words - 1 :]])
        return windows, np.stack([starts, stops], 1)
