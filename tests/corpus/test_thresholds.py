"""Oracle: sentences of 75 languages lie within bounds made for English, and their words are whole."""

import gzip
import unicodedata
from pathlib import Path
from statistics import mean

import pytest

from pretrain.base.extension import leaf
from pretrain.corpus.document import WORD, Document
from pretrain.corpus.thresholds import ENGLISH_WORD, LINES, WORDS, line_scale, word_scale

MUTANTS = [
    ("src/pretrain/corpus/filters/gopher_quality.py", " * word_scale(document.language)", ""),
    ("src/pretrain/corpus/filters/fineweb.py", "SHORT / line_scale(document.language)", "SHORT"),
    ("src/pretrain/corpus/document.py", "for b in range(0x0900, 0x0D80, 0x80)", "for b in range(0)"),
]
DATA = Path(__file__).parents[3] / "shared" / "data" / "lid" / "sentences.tsv.gz"


def sentences() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        for line in file:
            language, text = line.rstrip("\n").split("\t")
            found.setdefault(language, []).append(text)
    return found


def document(text: str, language: str | None) -> Document:
    return Document("0" * 32, "web", "u", text, language=language)


@pytest.mark.skipif(not DATA.exists(), reason="needs the sentences in ../shared/data")
def test_prose_of_any_language_has_words_of_a_length_that_gopher_keeps() -> None:
    quality = leaf("corpus.filters", "gopher_quality")()
    rules = [rule for rule in quality.rules() if rule.measure == "word_length"]
    for language, texts in sentences().items():
        for i in range(0, len(texts), 20):
            length = quality.measure(document(" ".join(texts[i : i + 20]), language))["word_length"]
            assert all(rule.holds(length) for rule in rules), (language, length)
        length = mean(len(word) for text in texts for word in WORD.findall(text))
        assert length == pytest.approx(WORDS.get(language, length), abs=0.15), language
        assert language in WORDS or abs(length - ENGLISH_WORD) < 2.2, language
        share = mean(map(len, texts)) / 108  # characters of the English ones
        assert share == pytest.approx(LINES.get(language, share), abs=0.05), language


def test_scales_and_short_lines() -> None:
    assert word_scale(None) == word_scale("en") == line_scale("de") == 1.0 and word_scale("zh") == ENGLISH_WORD
    fine = leaf("corpus.filters", "fineweb")()
    lines = "\n".join(["一二三四五六七八九十一二三四"] * 3)
    assert fine.measure(document(lines, "zh"))["short_lines"] == 0.0
    assert fine.measure(document(lines, "en"))["short_lines"] == 1.0


def test_marks_belong_to_their_words() -> None:
    words = {
        "हिन्दी में लिखा": ["हिन्दी", "में", "लिखा"],
        "தமிழ் மொழி": ["தமிழ்", "மொழி"],
        "cafe\u0301 n’est l'eau, a''b": ["cafe\u0301", "n’est", "l'eau", "a", "b"],
        "שָׁלוֹם עולם": ["שָׁלוֹם", "עולם"],
        "ภาษาไทยดี": ["ภ", "า", "ษ", "า", "ไ", "ท", "ย", "ดี"],
        "日本語 一つ": ["日", "本", "語", "一", "つ"],
        "x1_y 12": ["x1_y", "12"],
    }
    for text, expected in words.items():
        assert WORD.findall(text) == expected
    for code in [*range(0x300, 0x370), *range(0x591, 0x700), *range(0x900, 0x0D80)]:
        if unicodedata.category(chr(code)) in ("Mn", "Mc") and unicodedata.normalize("NFC", chr(code)) == chr(code):
            joined = WORD.findall(f"a{chr(code)}b")
            assert len(joined) == 1 or code in (0x9FE, 0xA75, 0xAFA, 0xAFB, 0xAFC, 0xAFD, 0xAFE, 0xAFF, 0xC04), hex(
                code
            )
