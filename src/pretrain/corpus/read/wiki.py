"""Dumps of MediaWiki (export schema 0.11), plain, bzip2, gzip or Zstandard: a page a document, its markup undone."""

import bz2
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, cast
from xml.parsers import expat

from pretrain.corpus.decode import DAMAGED
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

FIELDS = frozenset(("title", "ns", "id", "timestamp", "text", "redirect"))
CHUNK = 1 << 16  # bytes parsed at a time
ROUNDS = 40  # of brackets inside brackets that are undone


@dataclass(frozen=True)
class Wiki:
    """Articles; redirects and pages of other namespaces are flaws."""

    places: ClassVar[str] = "page"

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """Pages in the order of the dump, by their number."""
        pages = _Pages()
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = pages.start, pages.end
        parser.CharacterDataHandler = pages.said
        parser.EntityDeclHandler = pages.refuse  # entities of its own: no dump has any, a bomb does
        number = 0
        try:
            with _opened(file) as stream:
                while data := stream.read(CHUNK):
                    parser.Parse(data, False)
                    for page in pages.take():
                        yield _record(file, number, page)
                        number += 1
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, *DAMAGED):
            yield Flaw(number, f"{file.url}#{number}", "damaged dump, the rest is left out")


def _opened(file: SourceFile) -> BinaryIO:
    with file.open() as raw:
        compressed = raw.read(3) == b"BZh"
    return cast(BinaryIO, bz2.open(file.path)) if compressed else file.plain()


class _Pages:
    """What the parser has read of the page it is at, and the pages that are whole."""

    def __init__(self) -> None:
        self._whole = list[dict[str, str]]()
        self._page: dict[str, str] | None = None
        self._field, self._pieces, self._size = "", list[str](), 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "page":
            self._page = {}
        self._field, self._pieces, self._size = name, [], 0
        if name == "redirect" and self._page is not None:
            self._page["redirect"] = attributes.get("title", "?")

    def said(self, text: str) -> None:
        if self._page is not None and self._field in FIELDS:
            self._size += len(text)
            if self._size <= LONGEST:
                self._pieces.append(text)

    def end(self, name: str) -> None:
        if name == "page" and self._page is not None:
            self._whole.append(self._page)
            self._page = None
        elif self._page is not None and name == self._field and name in FIELDS:
            too_large = self._size > LONGEST
            self._page.setdefault("too large" if too_large else name, "".join(self._pieces))
        self._field = ""

    def refuse(self, *_: object) -> None:
        raise ValueError("entities of its own")

    def take(self) -> list[dict[str, str]]:
        whole, self._whole = self._whole, []
        return whole


def _record(file: SourceFile, number: int, page: dict[str, str]) -> Record | Flaw:
    title = page.get("title", "")
    url = f"{file.url}#{title or number}"
    if "redirect" in page:
        return Flaw(number, url, "redirect")
    if page.get("ns", "0") != "0":
        return Flaw(number, url, "no article")
    if "too large" in page:
        return Flaw(number, url, "too large")
    return Record(number, url, f"# {title}\n\n{plain(page.get('text', ''))}", title=title, date=page.get("timestamp"))


def plain(wikitext: str) -> str:
    """The text that a reader of the page would see: templates, references and files out, links to their words."""
    text = re.sub(r"<!--.*?-->", "", wikitext, flags=re.DOTALL)
    text = re.sub(r"<ref[^>/]{0,500}/>|<ref[^>]{0,500}>.*?</ref>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"<math[^>]{0,200}>(.*?)</math>", lambda m: f"${m[1].strip()}$", text, flags=re.DOTALL)
    text = re.sub(
        r"<(?:syntaxhighlight|source)[^>]{0,200}>(.*?)</(?:syntaxhighlight|source)>", r"\n\1\n", text, flags=re.S
    )
    formulas = list[str]()

    def keep(match: re.Match[str]) -> str:
        formulas.append(match[0])
        return f"\0{len(formulas) - 1}\0"

    text = re.sub(r"\$[^$\n]{1,2000}\$", keep, text.replace("\0", ""))
    for _ in range(ROUNDS):
        text, times = re.subn(r"\{\{[^{}]*\}\}", "", text)
        if not times:
            break
    text = re.sub(r"\{\|(.*?)\n\|\}", lambda m: _table(m[1]), text, flags=re.DOTALL)
    for _ in range(ROUNDS):
        text, times = re.subn(r"\[\[([^\[\]]*)\]\]", _link, text)
        if not times:
            break
    text = re.sub(r"\[(?:https?:)?//[^\s\]]+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"^([*#;:]+)\s*", _item, text, flags=re.MULTILINE)
    text = re.sub(r"^(={1,6})\s*(.*?)\s*\1\s*$", lambda m: f"{'#' * len(m[1])} {m[2]}", text, flags=re.MULTILINE)
    text = re.sub(r"'{2,5}|__[A-Z]+__|</?[a-zA-Z][^>\n]{0,200}>", "", text)
    text = re.sub(r"\0(\d+)\0", lambda m: formulas[int(m[1])], text)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip() + "\n"


def _link(match: re.Match[str]) -> str:
    target, _, words = match[1].partition("|")
    space = target.partition(":")[0].strip().lower()
    if ":" in target and space in ("file", "image", "category", "datei", "bild", "kategorie", "fichier", "archivo"):
        return ""
    return words.rpartition("|")[2] or target.lstrip(":")


def _table(inside: str) -> str:
    """Rows of cells between bars."""
    rows = []
    for row in re.split(r"\n\|-[^\n]*", "\n" + inside.partition("\n")[2]):  # the first line holds attributes
        lines = [line.strip().lstrip("|!+") for line in row.split("\n")]
        cells = [cell for line in lines for cell in re.split(r"\|\||!!", line) if cell.strip()]
        cells = [re.sub(r"^[^|\[\]]*=[^|\[\]]*\|(?!\|)", "", cell).strip() for cell in cells]
        if cells:
            rows.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(rows) + "\n"


def _item(match: re.Match[str]) -> str:
    return "  " * (len(match[1]) - 1) + "- " if match[1][-1] in "*#" else ""
