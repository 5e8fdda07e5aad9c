"""Ordeal and twin: hostile pages end with a text or a reason; the net is torch's; F1 on sites that it never saw."""

import gzip
import importlib.util
import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find, leaf
from pretrain.corpus import main_text
from pretrain.corpus import page as pages
from pretrain.corpus.document import Flaw, Record

pytest.importorskip("resiliparse", reason="parses pages: pip install 'pretrain[crawl]'")
MUTANTS = [
    ("src/pretrain/corpus/page.py", "links = not end", "links = bool(end)"),
    ("src/pretrain/corpus/page.py", "box = parents[box]", "box = 0"),
    ("src/pretrain/corpus/main_text.py", "wide[taps // 2 * step :]", "wide[taps // 2 :]"),
    ("src/pretrain/corpus/main_text.py", "features(page, named)) > 0)", "features(page, named)) < 0)"),
]
DATA = Path(__file__).parents[3] / "shared" / "data" / "html_articles"
extractor = leaf("corpus.extract", "blocks")()


def extract(page: bytes, media_type: str = "text/html") -> Record | Flaw:
    return extractor.extract(Record(0, "u", None, page, media_type))


def shingles(text: str) -> Counter:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))


@pytest.mark.skipif(not DATA.exists(), reason="needs the articles in ../shared/data")
def test_main_text_of_articles() -> None:
    """The net was trained on these pages: a check that the committed weights are whole, not a score."""
    truth = json.loads((DATA / "ground-truth.json").read_text())
    pairs = []
    for name, said in truth.items():
        found = extract(gzip.decompress((DATA / "html" / f"{name}.html.gz").read_bytes()))
        ours, theirs = shingles(getattr(found, "text", "") or ""), shingles(said["articleBody"])
        common = sum((ours & theirs).values())
        pairs.append((common / max(sum(ours.values()), 1), common / max(sum(theirs.values()), 1)))
    precision, recall = (statistics.mean(one) for one in zip(*pairs, strict=True))
    assert 2 * precision * recall / (precision + recall) > 0.955, (precision, recall)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the articles in ../shared/data")
def test_sites_that_a_net_never_saw() -> None:
    """A fold of sites, with a net of the other articles alone."""
    path = Path(__file__).parents[2] / "benchmarks" / "extraction.py"
    spec = importlib.util.spec_from_file_location("extraction", path)
    assert spec and spec.loader
    extraction = importlib.util.module_from_spec(spec)
    sys.modules["extraction"] = extraction
    spec.loader.exec_module(extraction)
    of = extraction.examples(["html_articles"])
    net = extraction.train([one for one in of if extraction.fold(one) != 0], seed=0)
    pairs = [extraction.overlap(extraction.chosen(net, one), one.truth) for one in of if extraction.fold(one) == 0]
    assert len(pairs) >= 10 and extraction.f1(pairs)[0] > 0.88, extraction.f1(pairs)


PAGE = """<html><head><title>A  title</title></head><body>
<nav class="menu"><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li></ul></nav>
<article><h1>A title</h1>{0}<h2>Of lists</h2>{0}
<ul><li>one item of a list, with words</li><li>two items of it</li></ul>{0}
<pre>for i in x:\n    print(i)</pre>{0}
<table><tr><th>name</th><th>size</th></tr><tr><td>first</td><td>12</td></tr></table>{0}
<p>Then <math alttext="x^2 &lt; y"><mi>x</mi></math> holds<!-- <p>not this</p> -->, as it was said before, by all.</p>
{0}</article>
<script>var a = "<p>nor this</p>";</script><footer class="footer"><a href="/l">Legal notice</a></footer></body></html>
"""
PROSE = "<p>This is a paragraph of a page, with enough words in it to be taken for one that says something, twice.</p>"


def test_blocks_of_a_page() -> None:
    page = pages.cut(PAGE.replace("{0}", ""))
    assert page is not None
    seen = [(page.kind(i), text) for i, text in enumerate(page.texts)]
    assert seen == [
        *(("li", "Home"), ("li", "News"), ("h1", "A title"), ("h2", "Of lists")),
        *(("li", "one item of a list, with words"), ("li", "two items of it"), ("pre", "for i in x:\n    print(i)")),
        *(("th", "name"), ("th", "size"), ("td", "first"), ("td", "12")),
        ("p", "Then $x^2 < y$ holds, as it was said before, by all."),
        ("", "Legal notice"),
    ]
    assert page.linked == [4, 4, *[0] * 10, 12]
    nav, first = page.tags.index("nav"), page.boxes[0]
    assert page.tags[page.parents[first]] == "ul" and (page.starts[nav], page.stops[nav]) == (0, 2)
    assert page.around[first] & page.own[nav] == page.own[nav] != 0
    assert page.parents[page.tags.index("footer")] == page.tags.index("body")


def test_structure() -> None:
    found = leaf("corpus.extract", "blocks")(markdown=True).extract(
        Record(0, "u", None, PAGE.format(PROSE).encode(), "text/html")
    )
    assert isinstance(found, Record) and found.text is not None and found.title == "A title"
    assert found.text.count("This is a paragraph") >= 5 and "Legal" not in found.text and "Home" not in found.text


def test_markdown_of_chosen_blocks() -> None:
    page = pages.cut(PAGE.format(""))
    assert page is not None
    assert list(find("corpus.extract", "blocks")._markdown(page, list(range(2, 12)))) == [
        "# A title",
        "## Of lists",
        "- one item of a list, with words\n- two items of it",
        "```\nfor i in x:\n    print(i)\n```",
        "| name | size |\n| --- | --- |\n| first | 12 |",
        "Then $x^2 < y$ holds, as it was said before, by all.",
    ]


def test_encodings_and_other_types() -> None:
    latin = extract(PAGE.format(PROSE.replace("something", "garçon à l'été")).encode("latin-1"))
    assert isinstance(latin, Record) and "garçon à l'été" in (latin.text or "")
    plain = extract("naïve".encode(), "text/plain")
    assert isinstance(plain, Record) and plain.text == "naïve"
    assert extract(b"%PDF", "application/pdf") == Flaw(0, "u", "no text in application/pdf")
    assert extract(b"<html></html>") == Flaw(0, "u", "no main text")
    assert extract(b"<p>" + b"a " * 5_000_000) == Flaw(0, "u", "page too large")
    assert extract(b"<p>a" * 30_000) == Flaw(0, "u", "page too large")


def test_the_net_is_torchs() -> None:
    net = {name: torch.from_numpy(np.asarray(value)) for name, value in main_text.weights().items()}
    inputs = np.random.default_rng(3).normal(size=(40, len(net["own.weight"]))).astype(np.float32)
    own = torch.relu(torch.from_numpy(inputs) @ net["own.weight"] + net["own.bias"])
    steps = [own]
    for name, step in (("near", 1), ("far", 3)):
        taps = net[f"{name}.weight"].permute(2, 1, 0)
        made = torch.conv1d(steps[-1].T[None], taps, net[f"{name}.bias"], padding=2 * step, dilation=step)
        steps.append(torch.relu(made)[0].T)
    steps.append(steps[-1].mean(0).expand_as(own))
    want = torch.cat(steps, 1) @ net["out.weight"].flatten() + net["out.bias"]
    torch.testing.assert_close(torch.from_numpy(main_text.scores(inputs)), want, rtol=1e-4, atol=1e-3)


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
        "<script>" * 50_000,
        "<li>x" * 15_000,
        "</div></p>" * 50_000 + "<plaintext><p>",
    ],
)
def test_hostile_pages_end(page: str) -> None:
    assert isinstance(extract(f"<html><body>{page}text".encode()), Record | Flaw)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="<>/=\"' pdivabrh!-&;#x\0", max_size=200).map(str.encode))
def test_any_bytes_are_a_text_or_a_reason(page: bytes) -> None:
    assert isinstance(extract(page), Record | Flaw)
