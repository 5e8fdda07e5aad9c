"""The language of a document, offline: a naive Bayes over byte n-grams (langid, Lui and Baldwin 2012), or fastText.

`model` is "langid" (py3langid's table of 97 languages, which the package carries), or a fastText file that you name
(lid.176.bin, GlotLID): nothing is ever fetched.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pretrain.base.errors import UserError
from pretrain.base.optional import extra
from pretrain.corpus.code_languages import CODE
from pretrain.corpus.document import Document, Rule
from pretrain.recipe.schema import key

LONGEST = 1500  # characters that are looked at: more changes next to nothing
VERSION = 3
SHORT = 40  # characters of a paragraph, below which it is taken to be in its document's language
CERTAIN = 0.9  # the score from which a paragraph in another language goes
CODES = re.compile("[a-z]{2,3}")  # ISO 639, as langid and fastText models name languages
MACRO = {"no": "nb"}  # what is answered for a group of languages, and the one that is meant nearly always


@dataclass(frozen=True)
class Language:
    """Says the language, keeps those of `keep`; source code stays what its reader says that it is.

    With `paragraphs`, a document is in the language of most of its text, and paragraphs in other ones are taken out.
    """

    model: str = key('"langid", or a fastText model, .bin or .ftz', "langid", path=True)
    keep: tuple[str, ...] = key("ISO 639 codes of languages that stay; none says all", ())
    min_score: float = key("of the model's, 0 to 1", 0.0, at_least=0, at_most=1)
    paragraphs: bool = key("look at each paragraph as well", False)

    def __post_init__(self) -> None:
        if wrong := next((one for one in self.keep if not CODES.fullmatch(one)), None):
            raise ValueError(f'keep: {wrong!r} is no ISO 639 code, which has two or three small letters, such as "en"')

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
            return MACRO.get(str(language), str(language)), float(score)
        labels, scores = self._model.predict(text)
        return labels[0].removeprefix("__label__").partition("_")[0], min(float(scores[0]), 1.0)

    def edit(self, document: Document) -> tuple[Document, dict[str, float]]:
        """The document with its language named."""
        if document.language in CODE:
            return document, {"language_score": 1.0, "wanted_language": 1.0, "foreign_share": 0.0}
        keep = {MACRO.get(one, one) for one in self.keep}
        language, score = self.identify(document.text)
        text, foreign = document.text, 0
        if self.paragraphs:
            said = [(one, *(self.identify(one) if len(one) >= SHORT else ("", 0.0))) for one in paragraphs(text)]
            language, score = _vote(said) or (language, score)
            kept = [one for one, other, certain in said if other in ("", language) or certain < CERTAIN]
            if language in (keep or {language}) and len(kept) < len(said):
                foreign, text = len(text) - sum(map(len, kept)), "".join(kept)
        wanted = not keep or language in keep
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


def paragraphs(text: str) -> list[str]:
    """Paragraphs with the line ends after them: a line, and those below it that go on in the middle of a sentence."""
    found, blank = list[list[str]](), False
    for line in text.splitlines(keepends=True):
        if found and (not line.strip() or (line[:1].islower() and not blank)):
            found[-1].append(line)
        else:
            found.append([line])
        blank = not line.strip()
    return ["".join(lines) for lines in found]


def _vote(said: Sequence[tuple[str, str, float]]) -> tuple[str, float] | None:
    """The language of most characters, and the mean score of its paragraphs; None where all are short."""
    sizes, scores = Counter[str](), dict[str, float]()
    for paragraph, language, score in said:
        if language:
            sizes[language] += len(paragraph)
            scores[language] = scores.get(language, 0.0) + len(paragraph) * score
    most = min(sizes, key=lambda one: (-sizes[one], one), default=None)
    return None if most is None else (most, scores[most] / sizes[most])
