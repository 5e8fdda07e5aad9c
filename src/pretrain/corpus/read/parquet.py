"""Parquet (parquet.apache.org): a document a row, a row group in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.errors import UserError, nearest
from pretrain.base.files import digest
from pretrain.corpus.document import Document, Flaw
from pretrain.corpus.sources import SourceFile


@dataclass(frozen=True)
class Parquet:
    """`text` names the column with the text, `url` the one with its address, if there is one."""

    text: str = "text"
    url: str = "url"

    def read(self, file: SourceFile, source: str) -> Iterator[Document | Flaw]:
        """A document a row; a row without text is a flaw with its number."""
        try:
            table = pa.parquet.ParquetFile(file.path)
        except pa.ArrowInvalid:
            raise UserError("no Parquet file", where=str(file.path)) from None
        with table:
            names = table.schema_arrow.names
            if self.text not in names:
                near = nearest(self.text, names)
                raise UserError(f"no column {self.text!r}", where=str(file.path), expected=", ".join(names), near=near)
            columns = [name for name in (self.text, self.url) if name in names]
            number = 0
            for group in table.iter_batches(batch_size=1024, columns=columns):
                for row in group.to_pylist():
                    text, where = row[self.text], f"{file.url}#{number}"
                    if isinstance(text, str) and text.strip():
                        identity = digest(f"{file.digest} {number}".encode())
                        yield Document(identity, source, str(row.get(self.url) or where), text)
                    else:
                        yield Flaw(where, "no text")
                    number += 1
