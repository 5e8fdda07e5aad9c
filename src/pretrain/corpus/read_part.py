"""From files to documents: every record that a reader finds is a row, a document or a flaw with its reason."""

import json
from collections.abc import Iterator

import pyarrow as pa

from pretrain.base.errors import UserError
from pretrain.base.files import digest
from pretrain.corpus.document import LONGEST, Document, Extractor, Flaw, Reader, Record
from pretrain.corpus.parts import Part, StepFile, making
from pretrain.corpus.sources import SourceFile, fetched
from pretrain.corpus.task import Journal

READ_VERSION = 2
TEXT = ("id", "source", "url", "text", "file", "title", "language", "license", "date", "group")
SCHEMA = pa.schema(
    [(name, pa.large_string()) for name in TEXT]
    + [("place", pa.int64()), *((name, pa.string()) for name in ("content", "measures", "reason", "step"))]
)
READING, EXTRACTING = 0, 1  # phases of a journal


def read_part(
    part: Part, reader: Reader, extractor: Extractor, license: str | None, out: StepFile, journal: Journal
) -> None:
    """Writes the rows of a part, in the order of its files and of the records in them. Raises UserError."""
    with making(out, SCHEMA) as (writer, account):
        for number, file in enumerate(part.files):
            for item, found in enumerate(_found(file, number, reader, journal)):
                one = _extracted(found, extractor, number, item, journal) if isinstance(found, Record) else found
                identity = digest(f"{file.digest} {file.url} {one.place}".encode())
                account.rows_in += 1
                row: dict[str, object]
                if isinstance(one, Flaw):
                    step = "read" if one is found else "extract"
                    account.reasons[f"{step}: {one.reason}"] += 1
                    row = {"text": clean(one.text) or None, "reason": one.reason, "step": step, "url": clean(one.url)}
                else:
                    row = _row(one, license)
                    account.rows_out += 1
                    account.bytes_out += len(str(row["text"]).encode())
                writer.add({"id": identity, "source": part.source, "file": file.url, "place": one.place, **row})


def _row(record: Record, license: str | None) -> dict[str, object]:
    text = clean(record.text or "")
    return {
        "url": clean(record.url),
        "text": text,
        "title": clean(record.title),
        "language": record.language,
        "license": record.license or license,
        "date": record.date,
        "group": clean(record.group) or None,
        "content": digest(text.encode()),
        "measures": json.dumps(dict(record.measures)) if record.measures else None,
    }


def clean(text: str) -> str:
    """What UTF-8 can hold, without NULs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _found(file: SourceFile, number: int, reader: Reader, journal: Journal) -> Iterator[Record | Flaw]:
    """What a reader yields; whatever goes wrong in it ends the file with a flaw, at a place of its own below zero."""
    if file.flaw:
        yield Flaw(-1, file.url, file.flaw)
        return
    if not journal.at(number, 0, READING):
        yield Flaw(-1 - _first(file), file.url, "its reader died here, the rest of the file is left out")
        return
    with fetched(file) as here:
        yield from _read(here, number, reader, journal)


def _read(file: SourceFile, number: int, reader: Reader, journal: Journal) -> Iterator[Record | Flaw]:
    records, item, place = iter(reader.read(file)), 0, -1 - _first(file)
    while True:
        if not journal.at(number, item, READING):
            yield Flaw(place - item, file.url, "its reader died here, the rest of the file is left out")
            return
        try:
            found = next(records)
        except StopIteration:
            return
        except UserError:
            raise
        except Exception as error:  # a hostile file is no reason to stop
            yield Flaw(place - item, file.url, f"{_name(error)} in its reader, the rest of the file is left out")
            return
        yield found
        item += 1


def _first(file: SourceFile) -> int:
    """The number of a file's first record, where it is a part of one."""
    return file.span[2] if file.span else 0


def _extracted(record: Record, extractor: Extractor, number: int, item: int, journal: Journal) -> Record | Flaw:
    if not journal.at(number, item, EXTRACTING):
        return Flaw(record.place, record.url, "its extraction died")
    if record.text is None:
        if len(record.data) > LONGEST:
            return Flaw(record.place, record.url, "too large")
        try:
            found = extractor.extract(record)
        except UserError:
            raise
        except Exception as error:
            return Flaw(record.place, record.url, f"{_name(error)} in extraction")
        if isinstance(found, Flaw):
            return found
        record = found
    text = record.text or ""
    if not text.strip():
        return Flaw(record.place, record.url, "no text")
    return record if len(text) <= LONGEST else Flaw(record.place, record.url, "too large", text[:1000])


def _name(error: Exception) -> str:
    return "out of memory" if isinstance(error, MemoryError) else type(error).__name__


def documents(base: StepFile) -> Iterator[list[Document | None]]:
    """The documents of a part, BATCH rows at a time; None where a row is a flaw."""
    names = [*TEXT, "place", "reason"]
    for batch in base.batches(names):
        yield [
            None
            if row.pop("reason") is not None
            else Document(**{**row, "title": row["title"] or "", "group": row["group"] or ""})
            for row in batch.to_pylist()
        ]
