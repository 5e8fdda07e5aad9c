"""Main text of a page by the blocks that it is made of: faster than trafilatura, and made here.

`corpus/main_text.py` says which blocks are main text.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from pretrain.corpus.decode import decode
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.main_text import chosen
from pretrain.corpus.page import Page, cut
from pretrain.corpus.said import date_and_license, title

VERSION = 2
LARGEST = 4 * 2**20  # characters of a page that are parsed; the rest of a longer one is no article
NEAR = 8  # elements between a text and its row or item


@dataclass(frozen=True)
class Blocks:
    """`markdown` keeps headings, lists, tables, code and formulas as such."""

    markdown: bool = False

    def extract(self, record: Record) -> Record | Flaw:
        """The record with the page's main text, or why there is none."""
        if record.media_type == "text/plain":
            return replace(record, text=decode(record.data), data=b"")
        if record.media_type not in ("text/html", "application/xhtml+xml"):
            return Flaw(record.place, record.url, f"no text in {record.media_type or 'an unknown type'}")
        text = decode(record.data).replace("\0", "")
        page = cut(text) if len(text) <= LARGEST else None
        if page is None:
            return Flaw(record.place, record.url, "page too large")
        name = title(text)
        blocks = chosen(page, name)
        if not blocks:
            return Flaw(record.place, record.url, "no main text")
        found = "\n\n".join(_markdown(page, blocks)) if self.markdown else "\n".join(_plain(page, blocks))
        date, license = date_and_license(text)
        date, license = date or record.date, license or record.license
        return replace(record, text=found, data=b"", title=record.title or name, date=date, license=license)


def _around(page: Page, block: int, tag: str) -> int:
    """The element with this tag around a block, 0 where there is none near."""
    box = page.boxes[block]
    for _ in range(NEAR):
        if page.tags[box] == tag:
            return box
        box = page.parents[box]
    return 0


def _plain(page: Page, chosen: list[int]) -> Iterator[str]:
    for block in chosen:
        item = _around(page, block, "li") if page.kind(block) == "li" else 0
        yield f"- {page.texts[block]}" if item and page.starts[item] == block else page.texts[block]


def _markdown(page: Page, chosen: list[int]) -> Iterator[str]:
    """Paragraphs, with a table and a list as one each."""
    for (kind, _), group in groupby(chosen, lambda block: _whole(page, block)):
        blocks = list(group)
        if kind == "tr":
            rows = [[page.texts[i] for i in row] for _, row in groupby(blocks, lambda i: _around(page, i, "tr"))]
            lines = [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in rows]
            yield "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
        elif kind == "li":
            yield "\n".join(_plain(page, blocks))
        else:
            text = "\n".join(page.texts[i] for i in blocks)
            level = "#" * int(kind[1]) + " " if kind[:1] == "h" and kind[1:].isdigit() else ""
            yield f"```\n{text}\n```" if kind == "pre" else level + " ".join(text.split()) if level else text


def _whole(page: Page, block: int) -> tuple[str, int]:
    """What a block is a part of: its kind, and the element of the table or list, or the block itself."""
    kind = page.kind(block)
    if kind in ("td", "th") and (row := _around(page, block, "tr")):
        return "tr", page.parents[row]
    if kind == "li" and (item := _around(page, block, "li")):
        return "li", page.parents[item]
    return kind, block
