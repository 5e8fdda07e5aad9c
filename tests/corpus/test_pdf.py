"""Oracle and closed form: a PDF holds what its LaTeX source says; two columns are read one after the other."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.document import WORD, Flaw, Record
from pretrain.corpus.sources import SourceFile

pytest.importorskip("pypdfium2", reason="reads PDF: pip install 'pretrain[crawl]'")
MUTANTS = [
    ("src/pretrain/corpus/read/pdf.py", "out[-1] = out[-1][:-1] + line.text", "out[-1] += line.text"),
    ("src/pretrain/corpus/read/pdf.py", "    if gutter is None:", "    if True:"),
]
DATA = Path(__file__).parents[3] / "shared" / "data" / "pdf"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the files in ../shared/data")
Pdf = find("corpus.read", "pdf").Pdf


def read(path: Path) -> Record | Flaw:
    (one,) = Pdf().read(SourceFile(path, path.name, path.stat().st_size, "0" * 32))
    return one


def pdf(path: Path, pages: list[list[tuple[float, float, str]]]) -> Path:
    """A PDF of lines of Helvetica at points of a page of 600 × 800."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for i, lines in enumerate(pages):
        stream = "\n".join(f"BT /F1 10 Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET" for x, y, text in lines)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = "%PDF-1.4\n", []
    for i, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{i} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    path.write_text(f"{out}{end}trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n")
    return path


def column(x: float, word: str, count: int = 12) -> list[tuple[float, float, str]]:
    return [(x, 700 - 12 * i, f"{word} {i:02} these are some words of") for i in range(count)]


def test_two_columns_between_wide_lines(tmp_path: Path) -> None:
    wide = "A title that goes over both of the columns of this page from one side to the other of it"
    lines = [(50, 760, wide), *column(50, "left"), *column(330, "right")]
    mixed = [line for pair in zip(lines[1:13], lines[13:], strict=True) for line in pair]  # drawn line by line
    found = read(pdf(tmp_path / "a.pdf", [[lines[0], *mixed]]))
    assert isinstance(found, Record) and found.text is not None
    order = re.findall(r"title|left \d\d|right \d\d", found.text)
    assert order == ["title", *(f"left {i:02}" for i in range(12)), *(f"right {i:02}" for i in range(12))]


def test_hyphens_paragraphs_running_heads_and_scans(tmp_path: Path) -> None:
    def page(number: int) -> list[tuple[float, float, str]]:
        body = [(50, 700, "The first para-"), (50, 688, "graph of page some and well-"), (50, 676, "Known ends here.")]
        return [(50, 780, f"A Book, chapter {number}"), *body, (50, 640, "Another one."), (290, 20, str(number))]

    found = read(pdf(tmp_path / "a.pdf", [*map(page, range(1, 5)), []]))
    assert isinstance(found, Record) and found.measures == {"pages": 5.0, "scanned_pages": 1.0}
    one = "The first paragraph of page some and well- Known ends here.\n\nAnother one."
    assert found.text == "\n\n".join([one] * 4) + "\n"
    assert read(pdf(tmp_path / "b.pdf", [[], []])) == Flaw(0, "b.pdf", "scanned PDF: no text layer")


@needs_data
@pytest.mark.parametrize("name", ["minimal-document", "pdflatex-4-pages"])
def test_a_pdf_says_what_its_source_says(name: str) -> None:
    found = read(DATA / f"{name}.pdf")
    assert isinstance(found, Record) and found.text is not None
    source = (DATA / f"{name}.tex").read_text()
    if r"\blind" in source:
        assert found.text.count("Hello, here is some text without a meaning.") >= 8
        assert "gefburn" in found.text and not re.search(r"\w- \w", found.text)
    else:
        theirs = WORD.findall(source.partition(r"\begin{document}")[2].partition(r"\end{document}")[0])
        assert WORD.findall(found.text) == theirs


@needs_data
def test_what_cannot_be_read_is_named_and_arabic_is_in_reading_order() -> None:
    reasons = {"libreoffice-writer-password": "encrypted PDF", "imagemagick-images": "scanned PDF: no text layer"}
    for name, reason in reasons.items():
        assert read(DATA / f"{name}.pdf") == Flaw(0, f"{name}.pdf", reason)
    found = read(DATA / "habibi.pdf")
    assert isinstance(found, Record) and found.text is not None and "حَبيبي" in found.text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=30)), min_size=1, max_size=4))
def test_mutilated_files_harm_nobody(tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bytes]]) -> None:
    path = pdf(tmp_path_factory.mktemp("x") / "a.pdf", [column(50, "left"), column(300, "right")])
    data = path.read_bytes()
    for place, junk in cuts:
        data = data[: place % len(data)] + junk + data[place % len(data) + len(junk) :]
    path.write_bytes(data)
    assert isinstance(read(path), Record | Flaw)
