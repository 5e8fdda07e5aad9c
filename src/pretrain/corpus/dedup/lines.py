"""Lines that many documents share: menus, notices, imprints (CCNet, Wenzek et al. 2020, arXiv 1911.00359, 3.1)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xxhash

from pretrain.corpus.document import Document
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Lines:
    """Takes a line out where it stands for more than the `most`-th time; short ones are left alone."""

    reason: ClassVar[str] = "nothing left"
    most: int = key("times that a line may stand in the corpus", 1, at_least=1)
    min_characters: int = key("of a line that is looked at", 20, at_least=0)

    def pieces(self, document: Document) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the lines, whatever their case and white space, and their spans with the line's end."""
        hashes, spans, start = list[int](), list[tuple[int, int]](), 0
        for line in document.text.splitlines(keepends=True):
            bare = " ".join(line.lower().split())
            if len(bare) >= self.min_characters:
                hashes.append(xxhash.xxh3_128_intdigest(bare.encode()))
                spans.append((start, start + len(line)))
            start += len(line)
        halves = [(one >> 64, one & 0xFFFFFFFFFFFFFFFF) for one in hashes]
        return np.array(halves, np.uint64).reshape(-1, 2), np.array(spans, np.int64).reshape(-1, 2)
