"""FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, 3.6): lines that end as sentences do, few short ones.

The paper says 0.12, 0.67 and, for characters in repeated lines, 0.1; the code that made FineWeb (datatrove's
FineWebQualityFilter) has 0.01 there and a fourth rule, 0.3 line ends for each word. The defaults are the code's.
"""

from dataclasses import dataclass

from pretrain.corpus.document import Document, Rule
from pretrain.corpus.thresholds import line_scale
from pretrain.recipe.schema import key

VERSION = 2
ENDINGS = (".", "!", "?", '"', "'", "”", "’", "…", "。", "！", "？", "؟", "।")
SHORT = 30  # characters of English


@dataclass(frozen=True)
class Fineweb:
    """Drops lists, menus and keyword stuffing."""

    min_punctuated_lines: float = key(
        "share of lines that end as sentences do (paper and code)", 0.12, at_least=0, at_most=1
    )
    max_short_lines: float = key(
        "share of lines of at most 30 characters (paper and code)", 0.67, at_least=0, at_most=1
    )
    max_duplicate_line_characters: float = key(
        "share of characters in repeated lines (code; the paper says 0.1)", 0.01, at_least=0, at_most=1
    )
    max_newlines_per_word: float = key("line ends for each word (code)", 0.3, at_least=0)

    def measure(self, document: Document) -> dict[str, float]:
        """Shares of one document."""
        lines = document.lines
        count, seen, again = max(len(lines), 1), set[str](), 0
        short = SHORT / line_scale(document.language)
        for line in lines:
            again += len(line) if line in seen else 0
            seen.add(line)
        return {
            "punctuated_lines": sum(line.endswith(ENDINGS) for line in lines) / count,
            "short_lines": sum(len(line) <= short for line in lines) / count,
            "duplicate_line_characters": again / max(len(document.text) - document.text.count("\n"), 1),
            "newlines_per_word": document.text.count("\n") / max(len(document.words), 1),
        }

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("punctuated_lines", "too few lines end as sentences do", at_least=self.min_punctuated_lines),
            Rule("short_lines", "too many short lines", at_most=self.max_short_lines),
            Rule("duplicate_line_characters", "too many repeated lines", at_most=self.max_duplicate_line_characters),
            Rule("newlines_per_word", "a list", at_most=self.max_newlines_per_word),
        ]
