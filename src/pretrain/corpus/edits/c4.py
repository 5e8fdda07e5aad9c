"""C4's rules (Raffel et al. 2020, arXiv 1910.10683, 2.2): lines that are no sentences go, pages of few go too."""

import re
from dataclasses import dataclass, replace

from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key

TERMINAL = (".", "!", "?", '"', "”")
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[\d{1,4}\]|\[edit\]|\[citation needed\]")
SENTENCE = re.compile(r"[^.!?。！？]*\w[^.!?。！？]*(?:[.!?。！？]+|$)")


@dataclass(frozen=True)
class C4:
    """`terminal` wants every line to end as a sentence does; FineWeb leaves that out (`terminal = false`)."""

    terminal: bool = True
    min_line_words: int = key("words of a line that stays", 5, at_least=0)
    min_sentences: int = key("sentences of a document that stays", 5, at_least=0)
    max_word_length: int = key("characters of the longest word of a line that stays", 1000, at_least=0)

    def edit(self, document: Document) -> tuple[Document, dict[str, float]]:
        """The document without lines on scripts and policies, short ones and, if asked, unfinished ones."""
        kept = [line for raw in document.text.split("\n") if self._stays(line := CITATION.sub("", raw).strip())]
        text = "\n".join(kept)
        lower = document.text.lower()
        measures = {
            "lines_removed": float(len(document.lines) - len(kept)),
            "sentences": float(sum(1 for _ in SENTENCE.finditer(text))),
            "lorem_ipsum": float("lorem ipsum" in lower),
            "curly_brackets": float("{" in document.text),
        }
        return (document if text == document.text else replace(document, text=text)), measures

    def _stays(self, line: str) -> bool:
        if not line or (self.terminal and (not line.endswith(TERMINAL) or line.endswith("..."))):
            return False
        words = line.split()
        lower = line.lower()
        return (
            len(words) >= self.min_line_words
            and max(map(len, words)) <= self.max_word_length
            and "javascript" not in lower
            and not any(said in lower for said in POLICY)
        )

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("sentences", "too few sentences", at_least=self.min_sentences),
            Rule("lorem_ipsum", "lorem ipsum", at_most=0),
            Rule("curly_brackets", "a curly bracket", at_most=0),
        ]
