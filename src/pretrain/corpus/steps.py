"""One source's files to its documents, in seeded hash order."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.errors import UserError
from pretrain.base.random import key
from pretrain.corpus.document import Document, Flaw, Reader
from pretrain.corpus.sources import SourceFile
from pretrain.recipe.corpus import Source

DOCUMENTS_VERSION = 1
DOCUMENTS, FLAWS = "documents.parquet", "flaws.parquet"
COLUMNS = ("id", "content", "source", "url", "text", "language", "license", "date")
SCHEMA = pa.schema([(name, pa.large_string()) for name in COLUMNS])


def read_documents(
    source: Source, files: list[SourceFile], folder: Path, seed: int, advance: Callable[[int], None] = lambda n: None
) -> None:
    """Writes documents.parquet and flaws.parquet of a source; holds the source's text in memory to put it in order.

    The order is that of a keyed hash of the ids: neighbours in a folder are strangers in a shard. Raises UserError.
    """
    reader = cast(Reader, source.reader.bind())
    documents: list[Document] = []
    flaws: list[Flaw] = []
    for file in files:
        for found in reader.read(file, source.name):
            if isinstance(found, Flaw):
                flaws.append(found)
            else:
                documents.append(found)
        advance(1)
    if not documents:
        raise UserError(f"corpus.sources {source.name!r}: no document in {len(files)} files", expected="text")
    documents.sort(key=lambda document: (key(seed, "documents", document.id), document.id))
    columns = {name: [getattr(document, name) for document in documents] for name in COLUMNS}
    columns["license"] = [license or source.license for license in columns["license"]]
    pa.parquet.write_table(pa.table(columns, SCHEMA), folder / DOCUMENTS, row_group_size=1024)
    rows = {"url": [flaw.url for flaw in flaws], "reason": [flaw.reason for flaw in flaws]}
    pa.parquet.write_table(pa.table(rows, pa.schema([("url", pa.string()), ("reason", pa.string())])), folder / FLAWS)
