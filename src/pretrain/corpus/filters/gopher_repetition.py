"""Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, table A1): drop pages that say one thing many times.

Runs of words are compared by 64-bit hashes in numpy; a text of n words costs O(n log n) for each length.
"""

from dataclasses import dataclass

import numpy as np

from pretrain.base.random import splitmix
from pretrain.corpus.document import Document, Rule
from pretrain.corpus.words import hashes
from pretrain.recipe.schema import key

VERSION = 2
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


@dataclass(frozen=True)
class GopherRepetition:
    """Drops a document by its repeated lines, paragraphs and runs of words; `scale` loosens all bounds alike."""

    scale: float = key("all bounds are multiplied by it", 1.0, at_least=0)
    max_duplicate_lines: float = key("share of lines that stood before", 0.3, at_least=0, at_most=1)
    max_duplicate_paragraphs: float = key("share of paragraphs that stood before", 0.3, at_least=0, at_most=1)
    max_duplicate_line_characters: float = key("share of characters in such lines", 0.2, at_least=0, at_most=1)
    max_duplicate_paragraph_characters: float = key(
        "share of characters in such paragraphs", 0.2, at_least=0, at_most=1
    )

    def measure(self, document: Document) -> dict[str, float]:
        """Shares of one document."""
        text = document.text
        size = max(len(text), 1)
        lines = document.lines
        paragraphs = [stripped for one in text.split("\n\n") if (stripped := one.strip())]
        out = {}
        for name, pieces in (("line", lines), ("paragraph", paragraphs)):
            seen = set[str]()
            again = [piece for piece in pieces if piece in seen or seen.add(piece)]  # type: ignore[func-returns-value]
            out[f"duplicate_{name}s"] = len(again) / max(len(pieces), 1)
            out[f"duplicate_{name}_characters"] = sum(map(len, again)) / size
        words = document.words
        keys = hashes(words)
        ends = np.cumsum([0, *map(len, words)])
        length = max(int(ends[-1]), 1)  # characters of words, what runs are a share of
        grams, places = splitmix(keys), np.arange(len(keys))
        for n in range(2, 11):
            grams = splitmix(grams[:-1] ^ keys[n - 1 :]) if len(grams) > 1 else grams[:0]
            places = places[: np.searchsorted(places, len(grams))]
            order = np.argsort(grams[places], kind="stable")
            equal = np.diff(grams[places[order]]) == 0  # to the next one
            repeat = np.concatenate([[False], equal])[: len(order)]
            first = np.flatnonzero(~repeat)
            if n in TOP:
                times = np.diff(first, append=len(order))
                out[f"top_{n}_gram"] = top_share(places[order[first]], times, ends, n) / length
            if n in DUPLICATE:
                out[f"duplicate_{n}_grams"] = duplicate_share(places[order[repeat]], ends, n) / length
            repeat[:-1] |= equal
            places = np.sort(places[order[repeat]])  # a longer run stands twice only where this one does
        return out

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        own = ("duplicate_lines", "duplicate_paragraphs", "duplicate_line_characters", "duplicate_paragraph_characters")
        bounds = {name: getattr(self, f"max_{name}") for name in own}
        bounds |= {f"top_{n}_gram": most for n, most in TOP.items()}
        bounds |= {f"duplicate_{n}_grams": most for n, most in DUPLICATE.items()}
        return [
            Rule(name, f"too much repetition: {name.replace('_', ' ')}", at_most=most * self.scale)
            for name, most in bounds.items()
        ]


def top_share(first: np.ndarray, times: np.ndarray, ends: np.ndarray, n: int) -> float:
    """Characters in the run of n words that takes most of them, if it stands more than once."""
    characters = (ends[first + n] - ends[first]) * np.where(times > 1, times, 0)
    return float(characters.max(initial=0))


def duplicate_share(starts: np.ndarray, ends: np.ndarray, n: int) -> float:
    """Characters of words in the runs of n that begin at `starts` and stood before, each word counted once."""
    if not len(starts):
        return 0.0
    covered = np.zeros(len(ends), np.int32)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + n, -1)
    inside = np.cumsum(covered)[:-1] > 0
    return float(np.diff(ends)[inside].sum())
