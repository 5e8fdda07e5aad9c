"""Text as it is: UTF-8, or what it is declared to be."""

from dataclasses import dataclass, replace

from pretrain.corpus.document import Flaw, Record


@dataclass(frozen=True)
class Plain:
    """Decodes a payload of plain text."""

    def extract(self, record: Record) -> Record | Flaw:
        """The record with its bytes as text."""
        try:
            return replace(record, text=record.data.decode("utf-8-sig"), data=b"")
        except UnicodeDecodeError:
            return Flaw(record.place, record.url, "not UTF-8")
