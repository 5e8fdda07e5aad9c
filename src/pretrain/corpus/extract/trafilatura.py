"""Main text of a page by Trafilatura (Barbaresi 2021, ACL demo), with headings, lists, tables, code and formulas."""

from dataclasses import dataclass, replace
from typing import Any

from pretrain.base.optional import extra
from pretrain.corpus.decode import decode
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.formulas import dollars, recover, some
from pretrain.corpus.main_text import main_text
from pretrain.corpus.said import date_and_license, title
from pretrain.recipe.schema import key

VERSION = 3
LARGEST = 4 * 2**20  # characters of a page that are parsed; the rest of a longer one is no article


@dataclass(frozen=True)
class Trafilatura:
    """Text with its structure: headings with #, lists with -, tables with |, code between ```, formulas between $.

    Words are those of Trafilatura's plain text, without emphasis or escapes; where it finds no main text and would give
    all that a page says, they are those of the main blocks (`corpus/main_text.py`). A page's own date, where it says
    one, is the document's, and the licence of its `rel="license"`.
    """

    fast: bool = key("leave out the second opinions of other extractors", True)
    structure: bool = key("mark headings, code and formulas", True)

    def extract(self, record: Record) -> Record | Flaw:
        """The record with the page's main text, or why there is none."""
        if record.media_type == "text/plain":
            return replace(record, text=decode(record.data), data=b"")
        if record.media_type not in ("text/html", "application/xhtml+xml"):
            return Flaw(record.place, record.url, f"no text in {record.media_type or 'an unknown type'}")
        page = decode(record.data).replace("\0", "")
        if len(page) > LARGEST:
            return Flaw(record.place, record.url, "page too large")
        text = self._text(page)
        if not text.strip():
            return Flaw(record.place, record.url, "no main text")
        date, license = date_and_license(page)
        date, license = date or record.date, license or record.license
        return replace(record, text=text, data=b"", title=record.title or title(page), date=date, license=license)

    def _text(self, page: str) -> str:
        library, content = extra("trafilatura", "crawl"), page
        if self.structure and some(page):
            content = library.load_html(page)
            if content is None:
                return ""
            recover(content)
        found = library.bare_extraction(content, fast=self.fast, include_comments=False, output_format="txt")
        if found is None or found.body is None:
            return ""
        if _everything(found.body) and (text := main_text(page)):
            return text
        if self.structure:
            mark(found.body)
        xml = extra("trafilatura.xml", "crawl")
        return extra("trafilatura.utils", "crawl").normalize_unicode(xml.xmltotxt(found.body, False)).strip()


def _everything(body: Any) -> bool:
    """Whether it found no main text, and gives all that a page says: one paragraph of many lines."""
    return len(body) == 1 and body[0].tag == "p" and "\n" in (body[0].text or "")


def mark(body: Any) -> None:
    """Writes the marks of headings, code and formulas into the text of an extracted tree (lxml)."""
    for element in list(body.iter()):
        inside = {ancestor.tag for ancestor in element.iterancestors()}
        if element.tag == "code":
            for end in element.iter("lb"):
                end.text = "\n"
            said = "".join(element.itertext())
            for child in list(element):  # no formulas are looked for in code
                element.remove(child)
            if "\n" in said.strip() and not inside & {"cell", "item", "p", "head"}:
                element.text = "\n```\n" + said.strip("\n") + "\n```\n"
            else:
                element.text = f"`{said.strip()}`" if said.strip() else said
        elif element.text:
            element.text = dollars(element.text)
        if element.tag == "head" and not inside & {"cell", "item"} and "".join(element.itertext()).strip():
            level = (element.get("rend") or "h2")[1:2]
            depth = int(level) if level.isdecimal() else 2
            element.text = f"{'#' * depth} {(element.text or '').lstrip()}"
        if element.tail:
            element.tail = dollars(element.tail)
