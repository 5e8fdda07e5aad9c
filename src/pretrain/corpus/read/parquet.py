"""Parquet (parquet.apache.org): a document a row, a batch of rows in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.errors import UserError, nearest
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.sources import SourceFile

ROWS = 256  # held in memory


@dataclass(frozen=True)
class Parquet:
    """Names of the columns, with dots into structs: `url = "metadata.url"`; all but the text's may be missing."""

    text: str = "text"
    url: str = "url"
    date: str = "date"
    language: str = "language"
    license: str = "license"

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """A record a row; a row without text is a flaw with its number."""
        try:
            table = pa.parquet.ParquetFile(file.path)
        except pa.ArrowInvalid:
            raise UserError("no Parquet file", where=str(file.path)) from None
        with table:
            names = table.schema_arrow.names
            if self.text.split(".")[0] not in names:
                near = nearest(self.text, names)
                raise UserError(f"no column {self.text!r}", where=str(file.path), expected=", ".join(names), near=near)
            said = (self.text, self.url, self.date, self.language, self.license)
            columns = sorted({name.split(".")[0] for name in said} & set(names))
            number = 0
            try:
                for batch in table.iter_batches(batch_size=ROWS, columns=columns):
                    for row in batch.to_pylist():
                        yield self._record(file, number, row)
                        number += 1
            except (pa.ArrowException, OSError):
                missing = table.metadata.num_rows - number
                yield Flaw(number, f"{file.url}#{number}", f"damaged, {missing} rows are left out")

    def _record(self, file: SourceFile, number: int, row: dict) -> Record | Flaw:
        text, where = _value(row, self.text), f"{file.url}#{number}"
        if not text or not text.strip():
            return Flaw(number, where, "no text")
        return Record(
            number,
            _value(row, self.url) or where,
            text,
            date=_value(row, self.date),
            language=_value(row, self.language),
            license=_value(row, self.license),
        )


def _value(row: object, name: str) -> str | None:
    for part in name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return str(row) if isinstance(row, (str, int)) else None
