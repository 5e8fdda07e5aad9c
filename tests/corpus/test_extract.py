"""Oracle and ordeal: F1 on articles is the library's own; hostile pages end, quickly, with a text or a reason."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import leaf
from pretrain.corpus.document import Flaw, Record

trafilatura = pytest.importorskip("trafilatura", reason="extracts main text: pip install 'pretrain[crawl]'")
MUTANTS = [
    ("src/pretrain/corpus/extract/trafilatura.py", "include_comments=False", "include_comments=True"),
    ("src/pretrain/corpus/extract/trafilatura.py", "len(body) == 1", "len(body) == 2"),
]
DATA = Path(__file__).parents[3] / "shared" / "data" / "html_articles"
extractor = leaf("corpus.extract", "trafilatura")()


def extract(page: bytes, media_type: str = "text/html") -> Record | Flaw:
    return extractor.extract(Record(0, "u", None, page, media_type))


def shingles(text: str) -> Counter:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the articles in ../shared/data")
def test_main_text_of_articles() -> None:
    truth = json.loads((DATA / "ground-truth.json").read_text())
    precisions, recalls = [], []
    for name, said in truth.items():
        found = extract(gzip.decompress((DATA / "html" / f"{name}.html.gz").read_bytes()))
        ours, theirs = shingles(getattr(found, "text", "") or ""), shingles(said["articleBody"])
        common = sum((ours & theirs).values())
        precisions.append(common / max(sum(ours.values()), 1))
        recalls.append(common / max(sum(theirs.values()), 1))
    precision, recall = (sum(one) / len(one) for one in (precisions, recalls))
    assert 2 * precision * recall / (precision + recall) > 0.96, (precision, recall)


PARAGRAPH = "<p>This is a paragraph of a page, with enough words in it to be taken for one that says something.</p>"


def test_structure_encodings_and_other_types() -> None:
    body = f"<h1>Head</h1>{PARAGRAPH * 3}<ul><li>one item</li><li>two items</li></ul>{PARAGRAPH}"
    page = f"<html><head><title>A  title</title></head><body><article>{body}</article></body></html>"
    found = extract(page.encode())
    assert isinstance(found, Record) and found.text is not None and found.title == "A title"
    assert "- one item\n- two items" in found.text and found.text.count("This is a paragraph") >= 2
    latin = extract(page.replace("something", "garçon à l'été").encode("latin-1"))
    assert isinstance(latin, Record) and "garçon à l'été" in (latin.text or "")
    plain = extract("naïve".encode(), "text/plain")
    assert isinstance(plain, Record) and plain.text == "naïve"
    assert extract(b"%PDF", "application/pdf") == Flaw(0, "u", "no text in application/pdf")
    assert extract(b"<html></html>") == Flaw(0, "u", "no main text")
    assert extract(b"<p>" + b"a " * 5_000_000) == Flaw(0, "u", "page too large")


def test_where_it_finds_no_main_text_the_main_blocks_are_taken() -> None:
    menu = "".join(f'<li><a href="/{i}">Department {i}</a></li>' for i in range(40))
    said = "A house burnt down last night, and the firemen came in time to save all of those who lived in it, they say."
    body = f'<div class="menu"><ul>{menu}</ul></div><div class="text"><h1>A fire</h1><span>{said}</span></div>'
    page = f"<html><head><title>A fire</title></head><body>{body}<div class='foot'>Legal notice</div></body></html>"
    whole = trafilatura.extract(page, fast=True, include_comments=False)
    assert whole and "Department 7" in whole and "Legal notice" in whole, "the library gives all of it"
    found = extract(page.encode())
    assert isinstance(found, Record) and found.text is not None and said in found.text
    assert "Department" not in found.text and "Legal" not in found.text


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 200_000,
        "<b><i>" * 50_000,
        "<table><tr><td>" * 20_000,
        "<ul><li>" * 50_000,
        "<p " + "a=1 " * 300_000,
        "&#0;" * 100_000,
        "<!--" * 100_000,
    ],
)
def test_hostile_pages_end(page: str) -> None:
    assert isinstance(extract(f"<html><body>{page}text".encode()), Record | Flaw)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="<>/=\"' pdivah!-&;#x\0", max_size=200).map(str.encode))
def test_any_bytes_are_a_text_or_a_reason(page: bytes) -> None:
    assert isinstance(extract(page), Record | Flaw)
