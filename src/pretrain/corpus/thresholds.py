"""Where a bound made for English does not fit: typical lengths of words and lines by ISO 639-1 language.

Bounds stay as their papers say them; a measure is taken as if its text were English (FineWeb2, Penedo et al. 2025,
arXiv 2506.20920, 4.1, sets them a language each). Characters of a word as `document.WORD` finds it, means over 300
sentences of each language (see test_thresholds.py); Lao, Khmer and Burmese as Thai. Other languages are near English.
"""

ENGLISH_WORD = 4.9
WORDS = {
    "zh": 1.0, "ja": 1.0, "th": 1.2, "lo": 1.2, "km": 1.2, "my": 1.2, "ko": 3.1, "pa": 3.8, "vi": 3.4, "hi": 3.8,
    "ur": 3.8, "fa": 3.8, "mi": 3.8, "yo": 3.8, "tn": 4.0, "xh": 7.4, "zu": 7.4, "fi": 7.6, "ta": 7.9,
}  # fmt: skip
LINES = {"zh": 0.4, "ja": 0.4, "ko": 0.6}  # characters of a sentence, as a share of an English one's


def word_scale(language: str | None) -> float:
    """What the length of a language's words is to be multiplied by."""
    return ENGLISH_WORD / WORDS.get(language or "en", ENGLISH_WORD)


def line_scale(language: str | None) -> float:
    """What the length of a language's lines is to be multiplied by."""
    return 1 / LINES.get(language or "en", 1.0)
