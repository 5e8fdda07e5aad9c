"""Parts, the units of work, and the files that steps write for them: a table and a small account beside it."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import xxhash

from pretrain.base.errors import DamagedError
from pretrain.base.files import digest_file, digest_of, room_for, sync_folder, write
from pretrain.corpus.sources import SourceFile

PART_BYTES = 32 * 2**20  # of input, on average, in a part of small files
Span = tuple[int, int, int]  # of a file: where it starts, where it ends, the number of its first record
BATCH = 512  # rows of a row group, and of what a step holds in memory


@dataclass(frozen=True)
class Part:
    """Some files of a source, whose records become the rows of one file of documents."""

    source: str
    files: tuple[SourceFile, ...]

    @property
    def inputs(self) -> list[list[object]]:
        """What it is made of: URLs, digests, and which part of a file."""
        return [[file.url, file.digest, file.span] for file in self.files]


def large(file: SourceFile) -> bool:
    """Whether a file is to be read in parts."""
    return file.bytes > 2 * PART_BYTES and not file.remote


def split(source: str, files: Sequence[SourceFile], spans: Mapping[str, Sequence[Span]]) -> list[Part]:
    """Parts of about PART_BYTES. Where one ends depends on its last file alone, so that a new file changes one part.

    A large file is read in its `spans`, by URL, each a part of its own.
    """
    parts, some, size = list[Part](), list[SourceFile](), 0
    for file in files:
        if len(found := spans.get(file.url, ())) > 1:
            parts += [Part(source, tuple(some))] if some else []
            parts += [Part(source, (replace(file, span=span),)) for span in found]
            some, size = [], 0
            continue
        some.append(file)
        size += file.bytes
        drawn = xxhash.xxh3_64_intdigest(file.url.encode()) / 2**64
        if drawn < file.bytes / PART_BYTES or size > 4 * PART_BYTES:
            parts.append(Part(source, tuple(some)))
            some, size = [], 0
    return [*parts, Part(source, tuple(some))] if some else parts


@dataclass
class Account:
    """What a step did to a part: rows in and out, bytes of text, why rows were dropped, and what it cost.

    `changed` are the rows whose text or language it changed, `copies` those in which it found copies of others,
    `languages` how often it named which.
    """

    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reasons: Counter = field(default_factory=Counter)
    changed: int = 0
    copies: int = 0
    languages: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.reasons, self.languages = Counter(self.reasons), Counter(self.languages)

    def add(self, other: "Account") -> None:
        """Sums two accounts into this one."""
        for name in ("rows_in", "rows_out", "bytes_in", "bytes_out", "changed", "copies", "seconds", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.languages.update(other.languages)


@dataclass(frozen=True)
class StepFile:
    """A step's output for a part: `<folder>/<step>/<digest of what went in>.parquet` (or .npy), and its account."""

    path: Path

    @property
    def account_path(self) -> Path:
        """The JSON beside it; a file without one is not finished."""
        return self.path.with_suffix(".json")

    @property
    def key(self) -> str:
        """What it was made of, in 32 digits."""
        return self.path.stem

    def done(self) -> bool:
        """Whether it is whole, by its size; its digest is held against it when it is read."""
        try:
            return self.path.stat().st_size == json.loads(self.account_path.read_bytes())["bytes"]
        except (OSError, ValueError, KeyError):
            return False

    def entry(self) -> dict:
        """The table beside it. Raises DamagedError."""
        try:
            return json.loads(self.account_path.read_bytes())
        except (OSError, ValueError):
            raise DamagedError("cannot be read", where=str(self.account_path), expected="a step's account") from None

    def account(self) -> Account:
        """What the step did. Raises DamagedError."""
        return Account(**self.entry()["account"])

    def check(self) -> None:
        """Holds the file against its digest; a damaged one is removed, so that the next run makes it anew."""
        if digest_file(self.path) != self.entry()["digest"]:
            self.account_path.unlink()
            raise DamagedError("content differs from its digest", where=str(self.path), expected="run again to remake")

    def commit(self, partial: Path, account: Account, **more: object) -> None:
        """Syncs a partial file, renames it and writes the account."""
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        table = {"bytes": partial.stat().st_size, "digest": digest_file(partial), "account": vars(account), **more}
        partial.replace(self.path)
        sync_folder(self.path.parent)
        write(self.account_path, json.dumps(table, ensure_ascii=False))

    @property
    def partial(self) -> Path:
        """Where it is written, one name a process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in order, BATCH at a time. Raises DamagedError."""
        self.check()
        with pa.parquet.ParquetFile(self.path) as table:
            yield from table.iter_batches(BATCH, columns=columns)

    def columns(self, *names: str) -> dict[str, pa.Array]:
        """Whole columns. Raises DamagedError."""
        self.check()
        table = pa.parquet.read_table(self.path, columns=list(names))
        return {name: table[name].combine_chunks() for name in names}


class TableWriter:
    """Writes rows of a step as they come, BATCH in memory."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._schema, self._rows = schema, list[Mapping[str, object]]()
        self._writer = pa.parquet.ParquetWriter(file, schema, compression="zstd", compression_level=3)

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a row."""
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Writes what is left."""
        if self._rows:
            self._flush()
        self._writer.close()


@contextmanager
def making(file: StepFile, schema: pa.Schema, *, timed: bool = True) -> Iterator[tuple[TableWriter, Account]]:
    """A writer and an account to fill; the file is there, whole, when the block ends well.

    What is made the same twice is `timed = False`: its account then holds no seconds.
    """
    partial, account = file.partial, Account()
    start, cpu = time.monotonic(), time.process_time()
    with room_for(file.path):
        try:
            writer = TableWriter(partial, schema)
            yield writer, account
            writer.close()
            if timed:
                account.seconds = time.monotonic() - start
                account.cpu_seconds = account.cpu_seconds or time.process_time() - cpu  # a step of several has its own
            file.commit(partial, account)
        finally:
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Steps:
    """The folder of step files, shared by all runs of a store."""

    root: Path

    def file(self, step: str, made_of: object, suffix: str = ".parquet") -> StepFile:
        """Where the output of a step lies, made or not."""
        return StepFile(self.root / step / f"{digest_of(made_of)}{suffix}")
