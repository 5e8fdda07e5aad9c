"""Rules for scientific papers (peS2o, Soldaini and Lo 2023): long enough, in words, in a language of words."""

import re
from collections import Counter
from dataclasses import dataclass

from pretrain.corpus.document import Document, Rule
from pretrain.corpus.stop_words import stop_words
from pretrain.corpus.words import FORMULA, has_letter
from pretrain.recipe.schema import key

VERSION = 2
REFERENCE = re.compile(r"^\W*(?:\[\d+\]|\d+\.)?.{0,200}(?:\(\d{4}[a-z]?\)|\b(?:19|20)\d\d\b).{0,80}$")


@dataclass(frozen=True)
class Papers:
    """Drops stubs, tables of contents, scans read badly and lists of references."""

    min_words: int = key("words of a paper", 500, at_least=0)
    min_alphabetic_words: float = key("share of words with a letter", 0.6, at_least=0, at_most=1)
    max_reference_lines: float = key("share of lines that look like a reference", 0.5, at_least=0, at_most=1)
    max_formulas: float = key("share of characters in formulas", 0.6, at_least=0, at_most=1)

    def measure(self, document: Document) -> dict[str, float]:
        """Numbers of one paper."""
        words, lines = document.words, document.lines
        known = stop_words(document.language)
        commonest = Counter(map(str.lower, words)).most_common(5)
        return {
            "words": len(words),
            "alphabetic_words": sum(map(has_letter, words)) / max(len(words), 1),
            "reference_lines": sum(bool(REFERENCE.match(line)) for line in lines) / max(len(lines), 1),
            "formulas": sum(len(one[0]) for one in FORMULA.finditer(document.text)) / max(len(document.text), 1),
            "function_words": float(known is None or any(word in known for word, _ in commonest)),
        }

    def rules(self) -> list[Rule]:
        """What must hold for a paper to stay."""
        return [
            Rule("words", "too few words", at_least=self.min_words),
            Rule("alphabetic_words", "too few words with letters", at_least=self.min_alphabetic_words),
            Rule("reference_lines", "mostly references", at_most=self.max_reference_lines),
            Rule("formulas", "mostly formulas", at_most=self.max_formulas),
            Rule("function_words", "its commonest words are no function words", at_least=1),
        ]
