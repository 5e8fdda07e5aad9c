"""Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, A.1.1): keep pages that read like prose."""

import re
from dataclasses import dataclass

from pretrain.corpus.document import Document, Rule
from pretrain.corpus.stop_words import stop_words
from pretrain.corpus.thresholds import word_scale
from pretrain.corpus.words import has_letter
from pretrain.recipe.schema import key

VERSION = 2
HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)  # a mark of structure, no symbol
BULLETS = ("-", "•", "*", "●", "▪", "‣")
ELLIPSES = ("…", "...")


@dataclass(frozen=True)
class GopherQuality:
    """Drops what is too short or long, mostly symbols, bullets or cut-off lines, or lacks function words."""

    min_words: int = key("words of a document", 50, at_least=0)
    max_words: int = key("words of a document", 100000, at_least=0)
    min_word_length: float = key("mean characters of a word, as if the language were English", 3.0, at_least=0)
    max_word_length: float = key("mean characters of a word, as if the language were English", 10.0, at_least=0)
    max_symbols_per_word: float = key("# and … for each word; the # of a heading is none", 0.1, at_least=0)
    max_bullet_lines: float = key("share of lines that begin with a bullet", 0.9, at_least=0, at_most=1)
    max_ellipsis_lines: float = key("share of lines that end with …", 0.3, at_least=0, at_most=1)
    min_alphabetic_words: float = key("share of words with a letter", 0.8, at_least=0, at_most=1)
    min_stop_words: int = key("different function words of the document's language", 2, at_least=0)

    def measure(self, document: Document) -> dict[str, float]:
        """Numbers of one document. A language without a table of function words has enough of them."""
        words, lines, text = document.words, document.lines, document.text
        known = stop_words(document.language)
        count = max(len(words), 1)
        marks = sum(len(mark[0]) - 1 for mark in HEADING.finditer(text))
        return {
            "words": len(words),
            "word_length": sum(map(len, words)) / count * word_scale(document.language),
            "symbols_per_word": (text.count("#") - marks + text.count("…") + text.count("...")) / count,
            "bullet_lines": sum(line.startswith(BULLETS) for line in lines) / max(len(lines), 1),
            "ellipsis_lines": sum(line.endswith(ELLIPSES) for line in lines) / max(len(lines), 1),
            "alphabetic_words": sum(map(has_letter, words)) / count,
            "stop_words": self.min_stop_words if known is None else len(known & set(map(str.lower, words))),
        }

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("words", "too few words", at_least=self.min_words),
            Rule("words", "too many words", at_most=self.max_words),
            Rule("word_length", "words too short", at_least=self.min_word_length),
            Rule("word_length", "words too long", at_most=self.max_word_length),
            Rule("symbols_per_word", "too many symbols", at_most=self.max_symbols_per_word),
            Rule("bullet_lines", "too many bullets", at_most=self.max_bullet_lines),
            Rule("ellipsis_lines", "too many lines cut off", at_most=self.max_ellipsis_lines),
            Rule("alphabetic_words", "too few words with letters", at_least=self.min_alphabetic_words),
            Rule("stop_words", "too few function words", at_least=self.min_stop_words),
        ]
