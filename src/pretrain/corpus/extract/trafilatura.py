"""Main text of a page by Trafilatura (Barbaresi 2021, ACL demo), with headings, lists, tables and code kept."""

from dataclasses import dataclass, replace

from pretrain.base.optional import extra
from pretrain.corpus.decode import decode
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.page import title

LARGEST = 4 * 2**20  # characters of a page that are parsed; the rest of a longer one is no article


@dataclass(frozen=True)
class Trafilatura:
    """`fast` leaves out the second opinions of other extractors; `markdown` keeps the structure."""

    fast: bool = True
    markdown: bool = False

    def extract(self, record: Record) -> Record | Flaw:
        """The record with the page's main text, or why there is none."""
        if record.media_type == "text/plain":
            return replace(record, text=decode(record.data), data=b"")
        if record.media_type not in ("text/html", "application/xhtml+xml"):
            return Flaw(record.place, record.url, f"no text in {record.media_type or 'an unknown type'}")
        page = decode(record.data).replace("\0", "")
        if len(page) > LARGEST:
            return Flaw(record.place, record.url, "page too large")
        library = extra("trafilatura", "crawl")
        form = "markdown" if self.markdown else "txt"
        text = library.extract(page, fast=self.fast, include_comments=False, output_format=form)
        if not text or not text.strip():
            return Flaw(record.place, record.url, "no main text")
        return replace(record, text=text, data=b"", title=record.title or title(page))
