"""Closed form: formulas, headings, code, dates and licences of pages, however they hold them; hostile ones end."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from pretrain.base.extension import leaf
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.formulas import dollars
from pretrain.corpus.said import date_and_license, title
from pretrain.corpus.sources import SourceFile

pytest.importorskip("trafilatura", reason="extracts main text: pip install 'pretrain[crawl]'")
MUTANTS = [
    ("src/pretrain/corpus/formulas.py", 'rf"\\frac{{{one}}}{{{two}}}"', 'rf"\\frac{{{two}}}{{{one}}}"'),
    ("src/pretrain/corpus/formulas.py", "_drop(before)", "pass"),
    ("src/pretrain/corpus/formulas.py", 'element.tag in ("span", "div") and DRAWN', "False and DRAWN"),
    ("src/pretrain/corpus/extract/trafilatura.py", "element.remove(child)", "pass"),
    ("src/pretrain/corpus/said.py", '"license" in said.get("rel", "")', '"" in said.get("rel", "")'),
]
extractor = leaf("corpus.extract", "trafilatura")()
WORDS = "is in a paragraph that is as long as most paragraphs are, so that it is kept whole by the extractor"


def text(body: str, *, structure: bool = True) -> str:
    page = f"<html><head><title>T</title></head><body><article>{body}<p>And this {WORDS}.</p></article></body></html>"
    found = replace(extractor, structure=structure).extract(Record(0, "u", None, page.encode(), "text/html"))
    assert isinstance(found, Record) and found.text is not None
    return found.text


MATH = "<mrow><mi>{0}</mi><mo>+</mo><mn>1</mn></mrow>"
FORMULAS = {
    "<math><mfrac><mi>a</mi><mi>b</mi></mfrac></math>": r"$\frac{a}{b}$",
    "<math><msqrt><mi>x</mi></msqrt><mo>=</mo><mroot><mi>y</mi><mn>3</mn></mroot></math>": r"$\sqrt{x} = \sqrt[3]{y}$",
    f"<math><msubsup><mi>x</mi>{MATH.format('i')}<mn>2</mn></msubsup></math>": "$x_{i + 1}^{2}$",
    f"<math><msup><mrow>{MATH.format('a')}</mrow><mn>2</mn></msup><mtext>if so</mtext></math>": (
        r"${a + 1}^{2} \text{if so}$"
    ),
    "<math><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr></mtable></math>": (
        r"$\begin{matrix} 1 & 2 \\ \end{matrix}$"
    ),
    '<math><semantics><mi>x</mi><annotation encoding="application/x-tex">x^{2}</annotation></semantics></math>': (
        "$x^{2}$"
    ),
    r'<math alttext="\alpha"><mi>a</mi></math>': r"$\alpha$",
    r'<script type="math/tex">\int_0^1 x</script>': r"$\int_0^1 x$",
    r'<img class="latex" alt="e^{i\pi}" src="x.png">': r"$e^{i\pi}$",
    (
        '<span class="mwe-math-element"><span style="display: none;"><math alttext="{\\displaystyle x_1}"><mi>x</mi>'
        '</math></span><img class="mwe-math-fallback-image-inline" alt="{\\displaystyle x_1}"></span>'
    ): "$x_1$",
    (
        '<span class="katex"><span class="katex-mathml"><math><semantics><mi>y</mi><annotation encoding='
        '"application/x-tex">y_2</annotation></semantics></math></span><span class="katex-html">y<sub>2</sub></span>'
        "</span>"
    ): "$y_2$",
    r"\(a_1\)": "$a_1$",
}


@pytest.mark.parametrize(("html", "tex"), FORMULAS.items())
def test_formulas_are_kept(html: str, tex: str) -> None:
    assert text(f"<p>The formula {html} {WORDS}.</p>").split("\n")[0] == f"The formula {tex} {WORDS}."


def test_displayed_formulas_stand_by_themselves() -> None:
    page = f'<p>One {WORDS}.</p><script type="math/tex; mode=display">E = mc^2</script><p>Two {WORDS}.</p>'
    assert text(page).split("\n")[:3] == [f"One {WORDS}.", "$$E = mc^2$$", f"Two {WORDS}."]


def test_structure_is_marked() -> None:
    code = "def f(x):\n    # a comment\n\n    return r'\\(x\\)'"
    table = "<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>"
    lists = "<ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>"
    body = f"<h1>Head <em>one</em></h1><p>A <b>bold</b> snake_case, <code>x[1]</code> {WORDS}.</p><h3>Two</h3>"
    found = text(f"{body}{lists}{table}<pre><code>{code}</code></pre>")
    lines = [line.rstrip() for line in found.split("\n")]
    assert lines[:3] == ["# Head one", f"A bold snake_case, `x[1]` {WORDS}.", "### Two"]
    assert lines[3:9] == ["- one", "  - inner", "- two", "| A | B |", "|---|---|", "| 1 | 2 |"]
    assert "```\ndef f(x):\n    # a comment\n" in found and "    return r'\\(x\\)'\n```\n" in found
    broken = text("<pre><code>x = 1<br>y = 2</code></pre>")
    assert "```\nx = 1\ny = 2\n```" in broken and broken.count("y = 2") == 1
    assert text(body, structure=False).split("\n")[:2] == ["Head one", f"A bold snake_case, x[1] {WORDS}."]


def test_words_are_those_of_the_plain_text() -> None:
    body = f"<h2>Head</h2><p>Some <i>slanted</i> text with a*b_c [1] {WORDS}.</p><blockquote>Said {WORDS}.</blockquote>"
    assert text(body).replace("## ", "") == text(body, structure=False)


@pytest.mark.parametrize(
    ("tag", "date", "license"),
    [
        ('<link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/deed.en">', None, "CC-BY-SA-4.0"),
        ("<a href='//creativecommons.org/publicdomain/zero/1.0/' rel='nofollow license'>x</a>", None, "CC0-1.0"),
        ('<a rel=license href=https://example.org/terms>x</a>', None, "https://example.org/terms"),
        ('<a href="https://creativecommons.org/licenses/by/4.0/">image by</a>', None, None),
        ('<meta property="article:published_time" content="2024-03-05T10:00:00Z">', "2024-03-05T10:00:00Z", None),
        ("<meta content='2001/02/03' name='DC.date'>", "2001-02-03", None),
        ('<time itemprop="datePublished" datetime="2010-11-12 08:00">', "2010-11-12T08:00", None),
        ('<script>{"@type": "NewsArticle", "datePublished": "2019-01-02"}</script>', "2019-01-02", None),
        ('<time datetime="2010-11-12">', None, None),
        ('<meta name="date" content="yesterday">', None, None),
    ],
)  # fmt: skip
def test_what_a_page_says_of_itself(tag: str, date: str | None, license: str | None) -> None:
    assert date_and_license(f"<html><head>{tag}</head></html>") == (date, license)
    record = Record(
        0,
        "u",
        None,
        f"<html><body>{tag}<p>It {WORDS}.</p></body></html>".encode(),
        "text/html",
        date="2025-01-01",
        license="MIT",
    )
    found = extractor.extract(record)
    assert isinstance(found, Record) and (found.date, found.license) == (date or "2025-01-01", license or "MIT")


def test_dollars_leave_unclosed_ones() -> None:
    assert dollars(r"\(a\) \(b \[c\] \[d") == r"$a$ \(b $$c$$ \[d"
    assert title("<title>\n A  b</title>") == "A b"


@pytest.mark.parametrize(
    "piece", [r"\(", r"\[", "<meta ", "<a x=", "<math><mi>", "<math>" * 3, '<img class="tex" ', "<t"]
)
def test_hostile_pages_take_linear_time(piece: str) -> None:
    page = f"<html><body><p>It {WORDS}.</p><math>{piece * (200_000 // len(piece))}".encode()
    start = time.process_time()
    assert isinstance(extractor.extract(Record(0, "u", None, page, "text/html")), Record | Flaw)
    assert time.process_time() - start < 8


def test_pages_as_zstandard_files(tmp_path: Path) -> None:
    path = tmp_path / "a.html.zst"
    page = f"<h1>Head</h1><p>It {WORDS}.</p>".encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(page))
    (found,) = leaf("corpus.read", "html")().read(SourceFile(path, "a.html.zst", path.stat().st_size, "0" * 32))
    assert isinstance(found, Record) and found.data == page
    path.write_bytes(path.read_bytes()[:-9])
    (flaw,) = leaf("corpus.read", "html")().read(SourceFile(path, "a.html.zst", path.stat().st_size, "0" * 32))
    assert isinstance(flaw, Flaw) or flaw.data != page
