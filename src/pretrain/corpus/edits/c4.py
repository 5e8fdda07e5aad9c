"""C4's rules (Raffel et al. 2020, arXiv 1910.10683, 2.2): lines that are no sentences go, pages of few go too.

The defaults are those of C4's code (c4_utils.py of TensorFlow Datasets: 5 words a line, 3 sentences a page);
FineWeb's (datatrove's C4QualityFilter) are `terminal = false, min_line_words = 3, min_sentences = 5`.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pretrain.base.errors import UserError
from pretrain.corpus.document import Document, Rule
from pretrain.corpus.words import FORMULA
from pretrain.recipe.schema import key

VERSION = 2
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

    terminal: bool = key("lines must end as sentences do", True)
    min_line_words: int = key("words of a line; shorter lines go", 5, at_least=0)
    min_sentences: int = key("sentences of what is left of a page", 3, at_least=0)
    max_word_length: int = key("characters of a word; lines with longer ones go", 1000, at_least=0)
    bad_words: tuple[str, ...] = key(
        "files of words, one a line; a page with one of them goes (C4: LDNOOBW)", (), path=True
    )

    @cached_property
    def _bad(self) -> re.Pattern[str] | None:
        """Any of the words, whole; None where no file is named. Raises UserError."""
        words = set[str]()
        for path in self.bad_words:
            try:
                lines = Path(path).read_text("utf-8", "replace").splitlines()
            except OSError:
                raise UserError("no such file", where=path, expected="a list, a word a line") from None
            words |= {line.strip().lower() for line in lines if line.strip()}
        found = "|".join(map(re.escape, sorted(words)))
        return re.compile(rf"(?:\W|^)(?:{found})(?=\W|$)") if words else None

    def edit(self, document: Document) -> tuple[Document, dict[str, float]]:
        """The document without lines on scripts and policies, short ones and, if asked, unfinished ones."""
        kept = [line for raw in document.text.split("\n") if self._stays(line := CITATION.sub("", raw).strip())]
        text = "\n".join(kept)
        lower = document.text.lower()
        measures = {
            "lines_removed": float(len(document.lines) - len(kept)),
            "sentences": float(sum(1 for _ in SENTENCE.finditer(text))),
            "lorem_ipsum": float("lorem ipsum" in lower),
            "curly_brackets": float("{" in FORMULA.sub("", document.text)),
            "bad_words": float(self._bad is not None and self._bad.search(lower) is not None),
        }
        return (document if text == document.text else replace(document, text=text)), measures

    def _stays(self, line: str) -> bool:
        if not line or (self.terminal and (not line.endswith(TERMINAL) or line.endswith("..."))):
            return False
        words = line.lstrip("#").split()  # the mark of a heading is no word
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
            Rule("curly_brackets", "a curly bracket outside of formulas", at_most=0),
            Rule("bad_words", "a word of the bad-word list", at_most=0),
        ]
