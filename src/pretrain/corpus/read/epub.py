"""Books in EPUB 2 and 3 (W3C EPUB 3.3): the chapters of the spine, in order, as one document."""

import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pretrain.base.optional import extra
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

NAMESPACES = {
    "c": "urn:oasis:names:tc:opendocument:xmlns:container",
    "o": "http://www.idpf.org/2007/opf",
    "d": "http://purl.org/dc/elements/1.1/",
}
APPARATUS = frozenset(
    ["titlepage", "imprint", "colophon", "copyright-page", "toc", "landmarks", "loi", "halftitlepage", "cover"]
)
BLOCKS = frozenset(
    [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "li",
        "tr",
        "pre",
        "div",
        "blockquote",
        "section",
        "article",
        "header",
        "footer",
        "figure",
        "figcaption",
        "dt",
        "dd",
        "hr",
        "hgroup",
    ]
)


@dataclass(frozen=True)
class Epub:
    """A book a file: headings with #, lists with -, paragraphs parted by blank lines; title pages and imprints out."""

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """The book, or why it cannot be read."""
        etree = extra("lxml.etree", "crawl")
        try:
            with file.open() as raw, zipfile.ZipFile(raw) as book:
                yield self._book(file, book, etree)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, NotImplementedError):
            yield Flaw(0, file.url, "broken EPUB")
        except RuntimeError:  # zipfile's word for an encrypted member
            yield Flaw(0, file.url, "encrypted EPUB")
        except etree.XMLSyntaxError:
            yield Flaw(0, file.url, "broken EPUB")

    def _book(self, file: SourceFile, book: zipfile.ZipFile, etree: Any) -> Record | Flaw:
        budget = _Budget(book, etree)
        container = budget.parse("META-INF/container.xml")
        path = container.find(".//c:rootfile", NAMESPACES).get("full-path") if container is not None else None
        path = path or ""
        package = budget.parse(path) if path else None
        if package is None:
            return Flaw(0, file.url, "broken EPUB")
        items = {item.get("id"): item for item in package.iterfind(".//o:manifest/o:item", NAMESPACES)}
        chapters = list[str]()
        for reference in package.iterfind(".//o:spine/o:itemref", NAMESPACES):
            item = items.get(reference.get("idref"))
            if item is None or "html" not in (item.get("media-type") or "") or "nav" in (item.get("properties") or ""):
                continue
            if not (href := item.get("href")):
                return Flaw(0, file.url, "broken EPUB")
            page = budget.parse(posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(href))))
            if page is not None and not _is_apparatus(page):
                chapters.append(text_of(page))
        if budget.left <= 0:
            return Flaw(0, file.url, "too large")

        def said(name: str) -> str | None:
            return (package.findtext(f".//d:{name}", None, NAMESPACES) or "").strip() or None

        text = "\n\n".join(chapter for chapter in chapters if chapter)
        return Record(
            0,
            file.url,
            text,
            title=said("title") or "",
            language=(said("language") or "").partition("-")[0].lower() or None,
            license=said("rights"),
            date=said("date"),
        )


class _Budget:
    """Members of a book, as long as they are not too large in sum."""

    def __init__(self, book: zipfile.ZipFile, etree: Any) -> None:
        self.book, self.left = book, LONGEST
        self.parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, huge_tree=False)
        self.etree = etree

    def parse(self, name: str) -> Any | None:
        if self.left <= 0:
            return None
        with self.book.open(name) as member:
            data = member.read(self.left + 1)
        self.left -= len(data)
        return self.etree.fromstring(data, self.parser) if self.left > 0 and data.strip() else None


def _is_apparatus(page: Any) -> bool:
    """Whether the book itself says that a page is none of its text."""
    for element in page.iter("{*}body", "{*}section", "{*}nav"):
        for name, value in element.attrib.items():
            if name.endswith("}type") and APPARATUS & set(value.replace(":", " ").split()):
                return True
    return False


def text_of(page: Any) -> str:
    """Paragraphs of an XHTML page, parted by blank lines."""
    blocks, line = list[str](), list[str]()

    def close() -> None:
        text = "\n".join(" ".join(part.split()) for part in "".join(line).split("\0"))
        if text.strip():
            blocks.append(text.strip())
        line.clear()

    body = page.find(".//{*}body")
    for event, element in _walk(page if body is None else body):
        tag = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
        if event == "start":
            if tag in BLOCKS:
                close()
                line.append("#" * int(tag[1]) + " " if re.fullmatch("h[1-6]", tag) else "- " if tag == "li" else "")
            elif tag == "br":
                line.append("\0")
            elif tag in ("td", "th") and "".join(line).strip():
                line.append(" | ")
            if tag and tag not in ("script", "style", "title"):
                line.append(element.text or "")
        else:
            if tag in BLOCKS:
                close()
            line.append(element.tail or "")
    close()
    return "\n\n".join(blocks).replace("\n\n- ", "\n- ")


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Starts and ends of elements in order, without recursion; the root's tail is not its own."""
    stack = [(root, iter(root))]
    yield "start", root
    while stack:
        element, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            if stack:
                yield "end", element
        else:
            yield "start", child
            stack.append((child, iter(child)))
