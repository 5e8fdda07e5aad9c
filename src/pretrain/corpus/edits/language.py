"""The language of a document, offline: a naive Bayes over byte n-grams (langid, Lui and Baldwin 2012), or fastText.

`model` is "langid" (py3langid's table of 97 languages, which the package carries), or a fastText file that you name
(lid.176.bin, GlotLID): nothing is ever fetched.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pretrain.base.errors import UserError
from pretrain.base.optional import extra
from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key

LONGEST = 1500  # characters that are looked at: more changes next to nothing
SHORT = 40  # characters of a paragraph, below which it is taken to be in its document's language


@dataclass(frozen=True)
class Language:
    """Says the language, keeps those of `keep`; with `paragraphs`, takes out paragraphs in other languages."""

    model: str = key('"langid", or a fastText model, .bin or .ftz', "langid", path=True)
    keep: tuple[str, ...] = ()
    min_score: float = key("bound on the score of the language", 0.0, at_least=0, at_most=1)
    paragraphs: bool = False

    @cached_property
    def _model(self) -> Any:
        if self.model == "langid":
            library = extra("py3langid.langid", "crawl")
            return library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)
        try:
            return extra("fasttext", "lid").load_model(self.model)
        except (ValueError, OSError):
            raise UserError(
                "no fastText model", where=self.model, expected='"langid", or a .bin or .ftz file'
            ) from None

    def identify(self, text: str) -> tuple[str, float]:
        """(ISO 639 code, score in 0 … 1) of a text."""
        text = re.sub(r"https?://\S+|\s+", " ", text[:LONGEST]).strip()
        if not text:
            return "und", 0.0
        if self.model == "langid":
            language, score = self._model.classify(text)
            return str(language), float(score)
        labels, scores = self._model.predict(text)
        return labels[0].removeprefix("__label__").partition("_")[0], min(float(scores[0]), 1.0)

    def edit(self, document: Document) -> tuple[Document, dict[str, float]]:
        """The document with its language named."""
        language, score = self.identify(document.text)
        wanted = not self.keep or language in self.keep
        text, foreign = document.text, 0
        if self.paragraphs and wanted:
            kept = []
            for paragraph in re.split(r"\n{2,}", text):
                if len(paragraph) < SHORT or self.identify(paragraph)[0] == language:
                    kept.append(paragraph)
                else:
                    foreign += len(paragraph)
            text = "\n\n".join(kept)
        measures = {
            "language_score": score,
            "wanted_language": float(wanted),
            "foreign_share": foreign / max(len(document.text), 1),
        }
        return replace(document, language=language, text=text), measures

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [
            Rule("wanted_language", "another language", at_least=1),
            Rule("language_score", "no language for certain", at_least=self.min_score),
        ]
