"""Near copies by MinHash (Broder 1997) and banding (Leskovec et al., Mining of Massive Datasets, 3.4).

Parameters as in FineWeb (Penedo et al. 2024, arXiv 2406.17557, 3.4): 5-word shingles, 14 bands of 8 hashes, which make
candidates of 77 % of pairs with a Jaccard similarity of 0.75 and of 92 % at 0.8; nothing is verified there. Lee et al.
2022 (arXiv 2107.06499, 4.2) have 20 bands of 450 and verify. Dolma (Soldaini et al. 2024, arXiv 2402.00159) has no
MinHash: exact copies, then paragraphs, which is `exact` and `lines` with `min_characters = 1`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xxhash

from pretrain.base.random import key as random_key
from pretrain.base.random import splitmix
from pretrain.corpus.document import Document
from pretrain.recipe.schema import key

VERSION = 2


@dataclass(frozen=True)
class Minhash:
    """Keeps one document of every cluster of near copies, the first or the longest; none that has a copy in `against`.

    `against` are earlier corpora: folders of the store, whose indexes are read and not their texts.
    """

    reason: ClassVar[str] = "near copy"
    scope: Literal["all", "source"] = key("copies are looked for in all sources, or in each", "all")
    keep: Literal["first", "longest"] = key("which copy stays", "first")
    most: int = key("documents of a cluster that stay", 1, at_least=1)
    against: tuple[str, ...] = key("earlier corpora, folders of the store", (), path=True)
    shingle: int = key("words of a shingle", 5, at_least=1)
    bands: int = key("keys of a document; candidates share one", 14, at_least=1)
    rows: int = key("hashes of a key", 8, at_least=1)
    verify: float | None = key(
        "least Jaccard similarity of two candidates' shingles; without one, all are joined, as in FineWeb",
        None,
        at_least=0.0,
        at_most=1.0,
    )

    def __post_init__(self) -> None:
        if self.against and self.verify is not None:
            raise ValueError("verify: an index of `against` holds keys, no shingles to verify by; say one of the two")

    def keys(self, document: Document) -> np.ndarray:
        """The keys of the bands, each with the band's number to tell it from others', uint64 [bands, 2]."""
        found = self.signature(self.shingles(document))
        return np.stack([found, np.arange(self.bands, dtype=np.uint64)], 1)

    def shingles(self, document: Document) -> np.ndarray:
        """Hashes of all runs of words, of all words where they are fewer; uint64, sorted, each once."""
        words = [word.lower() for word in document.words]
        hashes = np.array(
            [xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) for word in words] or [0], np.uint64
        )
        width = min(self.shingle, len(hashes))
        shingles = np.zeros(len(hashes) - width + 1, np.uint64)
        for i in range(width):
            shingles = splitmix(shingles ^ hashes[i : i + len(shingles)])
        return np.unique(shingles)

    def signature(self, shingles: np.ndarray) -> np.ndarray:
        """Keys of the bands, uint64 [bands]; two texts share a band's key with probability jaccard ** rows."""
        keys = np.array([random_key(0, "minhash", i) for i in range(self.bands * self.rows)], np.uint64)
        least = np.full(len(keys), np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(shingles), 512):  # a few hundred kilobytes at a time stay in the cache
            least = np.minimum(least, splitmix(shingles[start : start + 512, None] ^ keys).min(0))
        out = np.zeros(self.bands, np.uint64)
        for row in range(self.rows):
            out = splitmix(out ^ least.reshape(self.bands, self.rows)[:, row])
        return out
