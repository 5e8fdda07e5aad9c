"""Documents become tokens on disk: consecutive files of a cut go in, shards come out, each unit in its own folder."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.errors import UserError
from pretrain.base.files import digest_of, read_manifest
from pretrain.corpus.cut import Cut
from pretrain.corpus.task import Failure, Journal, Pool, Task
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.format import SHARD_VERSION
from pretrain.shards.write import ShardWriter, joined, write_catalogue
from pretrain.tokenizer.tokenizer import Tokenizer

TOGETHER = 256  # documents encoded in one call
BYTES_PER_TOKEN = 4  # of text, roughly: how much of it fills a shard
UNITS = 64  # at least, of a source that has as many files: work for that many workers


@dataclass(frozen=True)
class Unit:
    """Consecutive files of a source's kept documents, and the folder of the shards that are made of them."""

    files: tuple[Path, ...]
    folder: Path

    def done(self) -> bool:
        """Whether its catalogue, which is written last, is there, and the shards that it names."""
        try:
            catalogue = Catalogue.load(self.folder)
        except UserError:
            return False
        return all((self.folder / entry.name).exists() for entry in catalogue.shards)


def units(cut: Cut, source: str, tokenizer: Tokenizer, shard_tokens: int, scratch: Path) -> list[Unit]:
    """The units of a source, named by what goes into them; they depend on the cut alone, never on who works."""
    entries = read_manifest(cut.folder)
    files = sorted(name for name in entries if name.startswith(f"kept/{source}/"))
    text = sum(cut.summary[source][split]["bytes"] for split in ("train", "held_out"))
    most = max(1, min(shard_tokens * BYTES_PER_TOKEN * len(files) // max(text, 1), len(files) // UNITS))
    out = []
    for some in (files[i : i + most] for i in range(0, len(files), most)):
        digests = [entries[name]["digest"] for name in some]
        made_of = {"version": SHARD_VERSION, "shard": shard_tokens, "tokenizer": tokenizer.digest, "files": digests}
        out.append(Unit(tuple(cut.folder / name for name in some), scratch / digest_of(made_of)))
    return out


def tokenize(
    every: list[Unit], tokenizer: Tokenizer, at: Path, folder: Path, shard_tokens: int, pool: Pool,
    advance: Callable[[int], None] = lambda number: None,
) -> None:  # fmt: skip
    """Fills a folder with the shards of all units in their order; those units that are whole are used as they are.

    `at` is the folder of the tokenizer. Raises UserError where a unit cannot be made.
    """
    todo = [unit for unit in every if not unit.done()]
    tasks = [Task("tokenizing", make_unit, (unit, at, tokenizer.encoder, shard_tokens)) for unit in todo]
    for unit, one in zip(todo, pool.run(tasks, advance), strict=True):
        if isinstance(one, Failure):
            where = f"{unit.files[max(one.spot[0], 0)]}, documents from {max(one.spot[1], 0)} on"
            raise UserError(f"tokenizing failed three times: {one.reason.strip().splitlines()[-1]}", where=where)
    for unit in every:
        for entry in Catalogue.load(unit.folder).shards:
            _link(unit.folder / entry.name, folder / entry.name)
    write_catalogue(joined(folder, [Catalogue.load(unit.folder) for unit in every]))
    tokenizer.save(folder)


def make_unit(unit: Unit, at: Path, encoder: str, shard_tokens: int, journal: Journal) -> None:
    """The shards of a unit, and last its catalogue."""
    tokenizer = Tokenizer.load(at, encoder=encoder)
    shutil.rmtree(unit.folder, ignore_errors=True)  # what a killed worker left
    writer = ShardWriter(
        unit.folder,
        vocab_size=tokenizer.vocab_size,
        shard_tokens=shard_tokens,
        end=tokenizer.end,
        tokenizer=tokenizer.digest,
    )
    for number, path in enumerate(unit.files):
        done = 0
        for names, texts in training(path):
            journal.at(number, done)
            done += len(names)
            for name, tokens in zip(names, tokenizer.encode_batch(texts), strict=True):
                writer.add(name, tokens)
    writer.close()


def training(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and texts of the training documents of a file of a cut, TOGETHER at most."""
    with pa.parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(TOGETHER, columns=["id", "text", "split"]):
            rows = [row for row in batch.to_pylist() if row["split"] == "train"]
            yield [row["id"] for row in rows], [row["text"] for row in rows]


def _link(path: Path, to: Path) -> None:
    """The same file under another name; a copy where the file system has no such thing."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
