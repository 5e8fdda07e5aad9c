"""Exact copies: equal text."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pretrain.corpus.document import Document
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Exact:
    """Keeps one document of every text, in a source or in all; none that is in one of `against`, earlier corpora."""

    reason: ClassVar[str] = "exact copy"
    scope: Literal["all", "source"] = key("copies are looked for in all sources, or in each", "all")
    keep: Literal["first", "longest"] = key("which copy stays", "first")
    most: int = key("copies that stay", 1, at_least=1)
    against: tuple[str, ...] = key("earlier corpora, folders of the store", (), path=True)

    def keys(self, document: Document) -> np.ndarray:
        """Both halves of the text's digest, uint64 [1, 2]."""
        return np.array([[int(document.content[:16], 16), int(document.content[16:], 16)]], np.uint64)
