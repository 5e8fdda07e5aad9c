"""Length of a document and of its lines: generated tables and stubs teach a small model nothing."""

from dataclasses import dataclass

from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key


@dataclass(frozen=True)
class Length:
    """Drops what is too short, too long, or has a line that nobody typed."""

    min_characters: int = key("characters of a document", 1, at_least=0)
    max_characters: int = key("characters of a document", 10**9, at_least=0)
    max_line: int = key("characters of its longest line", 10**6, at_least=0)

    def measure(self, document: Document) -> dict[str, float]:
        """Characters of the text and of its longest line."""
        return {"characters": len(document.text), "line": max(map(len, document.text.splitlines()), default=0)}

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("characters", "too short", at_least=self.min_characters),
            Rule("characters", "too long", at_most=self.max_characters),
            Rule("line", "a line too long", at_most=self.max_line),
        ]
