"""A bound on the documents of one web domain, so that no site fills a corpus."""

from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
import xxhash

from pretrain.corpus.document import Document
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Domain:
    """Keeps `most` documents of a host: the first ones, or the longest."""

    reason: ClassVar[str] = "too many of its domain"
    scope: Literal["all", "source"] = key("documents are counted in all sources, or in each", "all")
    keep: Literal["first", "longest"] = key("which documents stay", "first")
    most: int = key("documents of a host that stay", 10000, at_least=1)

    def keys(self, document: Document) -> np.ndarray:
        """A hash of the host, uint64 [1]; none without one."""
        try:
            host = urlsplit(document.url).hostname
        except ValueError:
            host = None
        name = [xxhash.xxh3_64_intdigest(host.removeprefix("www.").encode("utf-8", "replace"))] if host else []
        return np.array(name, np.uint64)
