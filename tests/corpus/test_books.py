"""Oracle: EPUBs hold what their publisher's plain text holds; Gutenberg's markers, in all their forms, come off."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.document import WORD, Flaw, Record
from pretrain.corpus.sources import SourceFile

MUTANTS = [
    ("src/pretrain/corpus/read/epub.py", "APPARATUS & set(", "set() & set("),
    ("src/pretrain/corpus/read/epub.py", 'line.append(element.tail or "")', "pass"),
    ("src/pretrain/corpus/read/gutenberg.py", "end.start() if end else", "len(text) if end else"),
]
DATA = Path(__file__).parents[3] / "shared" / "data"
Gutenberg, Epub = find("corpus.read", "gutenberg").Gutenberg, find("corpus.read", "epub").Epub


def source(path: Path) -> SourceFile:
    return SourceFile(path, path.name, path.stat().st_size, "0" * 32)


def read(reader: object, path: Path) -> Record | Flaw:
    (one,) = reader.read(source(path))  # type: ignore[attr-defined]
    return one


def overlap(ours: str, theirs: str) -> tuple[float, float]:
    one, other = (
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in map(WORD.findall, (ours, theirs))
    )
    return len(one & other) / len(one), len(one & other) / len(other)


@pytest.mark.skipif(not (DATA / "epub").exists(), reason="needs the books in ../shared/data")
@pytest.mark.parametrize(
    "name", ["henry-david-thoreau_walden", "lewis-carroll_alices-adventures-in-wonderland_john-tenniel"]
)
def test_a_book_is_its_text(name: str) -> None:
    pytest.importorskip("lxml", reason="reads EPUB: pip install 'pretrain[crawl]'")
    book = read(Epub(), DATA / "epub" / f"{name}.epub")
    assert isinstance(book, Record) and book.text and book.language == "en" and book.title
    precision, recall = overlap(book.text, (DATA / "text" / f"{name}.txt").read_text())
    assert recall > 0.99 and precision > 0.95, (precision, recall)


def chapter(body: str, kind: str = "chapter") -> str:
    head = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
    return f'{head}<body epub:type="{kind}">{body}</body></html>'


def make(path: Path, pages: dict[str, str]) -> Path:
    items = "".join(f'<item id="{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in pages)
    spine = "".join(f'<itemref idref="{n}"/>' for n in pages)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>T</dc:title><dc:language>de-AT</dc:language></metadata><manifest>{items}</manifest>"
        f"<spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="a/b.opf"/></rootfiles></container>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("META-INF/container.xml", container)
        out.writestr("a/b.opf", package)
        for name, page in pages.items():
            out.writestr(f"a/{name}.xhtml", page)
    return path


def test_structure_is_kept_and_apparatus_left_out(tmp_path: Path) -> None:
    pytest.importorskip("lxml", reason="reads EPUB: pip install 'pretrain[crawl]'")
    table = "<table><tr><td>1</td><td>2</td></tr></table>"
    body = "<h2>One</h2><p>A  <i>small</i>\nword.</p><ul><li>x</li><li>y</li></ul><p>a<br/>b</p>" + table
    path = make(tmp_path / "a.epub", {"t": chapter("<p>no</p>", "titlepage"), "c": chapter(body)})
    book = read(Epub(), path)
    assert isinstance(book, Record) and (book.title, book.language) == ("T", "de")
    assert book.text == "## One\n\nA small word.\n- x\n- y\n\na\nb\n\n1 | 2"
    nowhere = make(tmp_path / "c.epub", {"c": chapter(body)})
    with zipfile.ZipFile(nowhere) as whole:
        members = {name: whole.read(name).replace(b' href="c.xhtml"', b"") for name in whole.namelist()}
    with zipfile.ZipFile(nowhere, "w") as without:
        for name, data in members.items():
            without.writestr(name, data)
    assert read(Epub(), nowhere) == Flaw(0, "c.epub", "broken EPUB")
    bomb = make(tmp_path / "b.epub", {"c": chapter("<p>" + "a" * 40_000_000 + "</p>")})
    assert read(Epub(), bomb) == Flaw(0, "b.epub", "too large")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2000), st.binary(max_size=60))
def test_mutilated_books_harm_nobody(tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes) -> None:
    pytest.importorskip("lxml", reason="reads EPUB: pip install 'pretrain[crawl]'")
    path = make(tmp_path_factory.mktemp("x") / "a.epub", {"c": chapter("<p>word</p>")})
    data = path.read_bytes()
    path.write_bytes(data[: place % len(data)] + junk + data[place % len(data) + len(junk) :])
    assert isinstance(read(Epub(), path), Record | Flaw)


PROSE = "It was a line that went on and on until it\nreached the margin of the page, as lines do,\nand ended here."
JOINED = "It was a line that went on and on until it reached the margin of the page, as lines do, and ended here."


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("*** START OF THE PROJECT GUTENBERG EBOOK DRACULA ***", "*** END OF THE PROJECT GUTENBERG EBOOK DRACULA ***"),
        ("***START OF THIS PROJECT GUTENBERG EBOOK X***", "End of the Project Gutenberg EBook of X, by Y"),
        ("*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", "End of Project Gutenberg's X"),
    ],
)
def test_boilerplate_comes_off(tmp_path: Path, start: str, end: str) -> None:
    head = "The Project Gutenberg eBook of X\n\nTitle: X and Y\nLanguage: German\n\n"
    path = tmp_path / "a.txt"
    path.write_text(
        f"{head}{start}\n\nProduced by A and\nB.\n\n{PROSE}\n\nshort\nverse\n\n  {PROSE[:60]}\n\n{end}\n\nLICENCE\n"
    )
    book = read(Gutenberg(), path)
    assert isinstance(book, Record) and (book.title, book.language, book.measures) == (
        "X and Y",
        "de",
        {"boilerplate_found": 2.0},
    )
    assert (
        book.text is not None
        and book.text.startswith(f"{JOINED.replace('  ', ' ')[:40]}")
        and "LICENCE" not in book.text
    )
    assert "short\nverse" in book.text and "Produced" not in book.text and start not in book.text
    path.write_text(PROSE.replace("\n", " "))
    plain = read(Gutenberg(), path)
    assert isinstance(plain, Record) and plain.measures == {"boilerplate_found": 0.0} and plain.text == JOINED + "\n"
