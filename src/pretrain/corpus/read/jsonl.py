"""JSON Lines (jsonlines.org), plain, .gz or .zst: a document a line."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, cast

import zstandard

from pretrain.base.errors import UserError, nearest
from pretrain.base.files import digest
from pretrain.corpus.document import Document, Flaw
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Jsonl:
    """`text` names the field with the text, `url` the one with its address."""

    text: str = "text"
    url: str = "url"

    def read(self, file: SourceFile, source: str) -> Iterator[Document | Flaw]:
        """A document a line; a line that is no JSON, or holds no text, is a flaw with its number."""
        with closing(_open(file)) as lines:
            for number, line in enumerate(lines, 1):
                where = f"{file.url}:{number}"
                try:
                    record = json.loads(line)
                except ValueError:
                    yield Flaw(where, "no JSON")
                    continue
                text = record.get(self.text) if isinstance(record, dict) else None
                if number == 1 and isinstance(record, dict) and text is None:
                    near = nearest(self.text, record)
                    raise UserError(f"no field {self.text!r}", where=where, expected=", ".join(record), near=near)
                if not isinstance(text, str) or not text.strip():
                    yield Flaw(where, "no text")
                    continue
                license = record.get("license") if isinstance(record.get("license"), str) else None
                url = str(record.get(self.url) or where)
                yield Document(digest(f"{file.digest} {number}".encode()), source, url, text, license=license)


def _open(file: SourceFile) -> BinaryIO:
    if file.path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(file.path))
    raw = file.path.open("rb")
    if file.path.suffix == ".zst":
        return cast(
            BinaryIO, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
        )
    return raw
