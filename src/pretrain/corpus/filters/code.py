"""Rules for source files (Kocetkov et al. 2022, arXiv 2211.15533; Li et al. 2023, arXiv 2305.06161, 3.3)."""

import re
from dataclasses import dataclass

from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key

ENCODED = re.compile(r"[A-Za-z0-9+/=]{64,}|(?:\\x[0-9a-fA-F]{2}){16,}|(?:0x[0-9a-fA-F]{2}\s*,\s*){16,}")


@dataclass(frozen=True)
class Code:
    """Drops what nobody typed: very long lines, data, encoded bytes, text without letters."""

    max_mean_line: float = key("mean characters of a line", 100.0, at_least=0)
    max_line: int = key("characters of the longest line", 1000, at_least=0)
    min_alphanumeric: float = key("share of letters and digits", 0.25, at_least=0, at_most=1)
    min_alphabetic: float = key("share of letters", 0.25, at_least=0, at_most=1)
    max_encoded: float = key("share of characters in base64 and byte tables", 0.5, at_least=0, at_most=1)

    def measure(self, document: Document) -> dict[str, float]:
        """Line lengths in characters, and shares of the text."""
        text = document.text
        lengths = [len(line) for line in text.split("\n")]
        size = max(len(text), 1)
        letters = sum(map(str.isalpha, text))
        return {
            "mean_line": sum(lengths) / len(lengths),
            "longest_line": max(lengths),
            "alphanumeric": (letters + sum(map(str.isdecimal, text))) / size,
            "alphabetic": letters / size,
            "encoded": sum(len(found[0]) for found in ENCODED.finditer(text)) / size,
        }

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("mean_line", "lines too long on average", at_most=self.max_mean_line),
            Rule("longest_line", "a line too long", at_most=self.max_line),
            Rule("alphanumeric", "too few letters and digits", at_least=self.min_alphanumeric),
            Rule("alphabetic", "too few letters", at_least=self.min_alphabetic),
            Rule("encoded", "mostly encoded data", at_most=self.max_encoded),
        ]
