"""Oracle: languages of real sentences; a confusion table counted by hand; mixed pages by paragraph."""

import gzip
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.corpus.confusion import confusion, table
from pretrain.corpus.document import Document
from pretrain.corpus.edits.language import paragraphs

MUTANTS = [
    ("src/pretrain/corpus/edits/language.py", "not keep or language in keep", "True"),
    ("src/pretrain/corpus/edits/language.py", "sizes[language] += len(paragraph)", "sizes[language] += 1"),
    ("src/pretrain/corpus/edits/language.py", "keep = {MACRO.get(one, one)", "keep = {one"),
    ("src/pretrain/corpus/edits/language.py", "or certain < CERTAIN", "or True"),
    ("src/pretrain/corpus/edits/language.py", "document.language in CODE", "False"),
    ("src/pretrain/corpus/confusion.py", "answers[said] += times", "answers[truth] += times"),
]
SENTENCES = Path(__file__).parents[3] / "shared" / "data" / "lid" / "sentences.tsv.gz"
Language = leaf("corpus.edits", "language")
needs_crawl = pytest.mark.usefixtures("crawl")
ENGLISH = "The committee has decided that the meeting will be held again next week, whatever the weather may be."
GERMAN = "Der Ausschuss hat beschlossen, dass die Sitzung in der nächsten Woche noch einmal stattfinden wird."


@pytest.fixture
def crawl() -> None:
    pytest.importorskip("py3langid", reason="identifies languages: pip install 'pretrain[crawl]'")


def document(text: str) -> Document:
    return Document("0" * 32, "web", "u", text)


@needs_crawl
@pytest.mark.skipif(not SENTENCES.exists(), reason="needs the sentences in ../shared/data")
def test_sentences_of_75_languages() -> None:
    with gzip.open(SENTENCES, "rt", encoding="utf-8") as file:
        pairs = [line.rstrip("\n").split("\t") for line in file][::30]
    model = Language()
    counts = confusion((truth, model.identify(text)[0]) for truth, text in pairs)
    right = sum(times for (truth, said), times in counts.items() if truth == said)
    assert right / len(pairs) > 0.9
    assert table(counts).startswith(f"{right / len(pairs):.3f} of {len(pairs):,} are right")


def test_languages_are_said_by_their_codes() -> None:
    with pytest.raises(ValueError, match="keep: 'english' is no ISO 639 code"):
        Language(keep=("de", "english"))


@needs_crawl
def test_a_group_of_languages_stands_for_the_one_that_is_meant() -> None:
    text = "Komiteen har bestemt at møtet skal holdes igjen neste uke, uansett hvordan været måtte bli på øya."
    edited, measures = Language(keep=("no",)).edit(document(text))
    assert edited.language == "nb" and measures["wanted_language"] == 1


@needs_crawl
def test_what_is_kept_and_mixed_pages() -> None:
    edited, measures = Language(keep=("de",)).edit(document(ENGLISH))
    assert edited.language == "en" and measures["wanted_language"] == 0.0
    page = f"{GERMAN}\n\n{ENGLISH}\n\n{GERMAN} {GERMAN}\n\nkurz"
    edited, measures = Language(paragraphs=True).edit(document(page))
    assert edited.language == "de" and edited.text == f"{GERMAN}\n\n{GERMAN} {GERMAN}\n\nkurz"
    assert measures["foreign_share"] == pytest.approx((len(ENGLISH) + 2) / len(page))
    assert Language().edit(document("   "))[0].language == "und"


def test_a_model_that_is_none() -> None:
    with pytest.raises(UserError, match=r"fasttext is not installed|no fastText model"):
        Language(model="nowhere.bin").identify("text")


def test_confusion_is_counted() -> None:
    pairs = [("de", "de")] * 3 + [("de", "nl")] + [("nl", "nl")] * 2 + [("mi", "en")]
    assert confusion(pairs) == Counter({("de", "de"): 3, ("de", "nl"): 1, ("nl", "nl"): 2, ("mi", "en"): 1})
    lines = [line.split() for line in table(confusion(pairs)).splitlines()[3:]]
    assert lines == [
        ["mi", "1", "0.000", "0.000", "en", "1"],
        ["de", "4", "0.750", "1.000", "nl", "1"],
        ["nl", "2", "1.000", "0.667"],
    ]


@needs_crawl
def test_the_language_of_a_mixed_page_is_that_of_most_of_it() -> None:
    other = "Nobody in the village had seen the man before, and yet all of them knew at once who he was."
    page = f"{ENGLISH}\n{GERMAN} {GERMAN}\n{other} {other}\nNo one knew.\n"
    edited, measures = Language(paragraphs=True).edit(document(page))
    assert edited.language == "en" and GERMAN not in edited.text and measures["language_score"] > 0.9
    assert edited.text == page.replace(f"{GERMAN} {GERMAN}\n", "")
    assert measures["foreign_share"] == pytest.approx((len(page) - len(edited.text)) / len(page))
    mostly = Language(paragraphs=True).edit(document("\n".join([ENGLISH, f"{GERMAN} " * 4, other])))[0]
    assert mostly.language == "de", "by characters, not by paragraphs"
    wanted, _ = Language(paragraphs=True, keep=("fr",)).edit(document(page))
    assert wanted.text == page, "a document that goes is not cut as well"


def test_paragraphs_of_wrapped_lines() -> None:
    assert paragraphs("One two\nthree four.\nFive.\n\nSix\n\n\nseven") == [
        "One two\nthree four.\n",
        "Five.\n\n",
        "Six\n\n\n",
        "seven",
    ]


def test_code_stays_in_its_language() -> None:
    code = replace(document("print('this is a line in English, which the program says')"), language="python")
    edited, measures = Language(keep=("en",)).edit(code)
    assert edited is code and measures["wanted_language"] == 1.0
