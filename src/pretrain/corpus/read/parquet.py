"""Parquet (parquet.apache.org): a document a row, a batch of rows in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.errors import nearest
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.sources import SourceFile
from pretrain.recipe.schema import key

ROWS = 256  # held in memory


@dataclass(frozen=True)
class Parquet:
    """Names of the columns, with dots into structs: `url = "metadata.url"`; all but the text's may be missing."""

    places: ClassVar[str] = "row"
    text: str = key("column of the text", "text")
    url: str = key("column of the address", "url")
    date: str = key("column of the date", "date")
    language: str = key("column of the language", "language")
    license: str = key("column of the licence", "license")

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """A record a row; a row without text is a flaw with its number."""
        try:
            table = pa.parquet.ParquetFile(file.path)
        except (pa.ArrowException, OSError):
            yield Flaw(0, file.url, "damaged, or no Parquet")
            return
        with table:
            names = table.schema_arrow.names
            if self.text.split(".")[0] not in names:
                near, place = nearest(self.text, names), file.span[2] if file.span else 0
                yield Flaw(place, file.url, f"no column {self.text!r}" + (f", nearest: {near}" if near else ""))
                return
            said = (self.text, self.url, self.date, self.language, self.license)
            columns = sorted({name.split(".")[0] for name in said} & set(names))
            start, stop, number = file.span or (0, table.num_row_groups, 0)
            last = number + sum(table.metadata.row_group(i).num_rows for i in range(start, stop))
            try:
                for batch in table.iter_batches(batch_size=ROWS, columns=columns, row_groups=range(start, stop)):
                    for row in batch.to_pylist():
                        yield self._record(file, number, row)
                        number += 1
            except (pa.ArrowException, OSError):
                yield Flaw(number, f"{file.url}#{number}", f"damaged, {last - number} rows are left out")

    def spans(self, file: SourceFile, size: int) -> Iterator[tuple[int, int, int]]:
        """Runs of row groups of about `size` bytes: (first group, where it ends, number of its first row)."""
        try:
            with pa.parquet.ParquetFile(file.path) as table:
                groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
        except (pa.ArrowException, OSError):
            return  # what is wrong is said when it is read
        start, first, row, taken = 0, 0, 0, 0
        for i, group in enumerate(groups, 1):
            row, taken = row + group.num_rows, taken + group.total_byte_size
            if taken >= size or i == len(groups):
                yield start, i, first
                start, first, taken = i, row, 0

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
