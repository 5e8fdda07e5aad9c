"""Token shards that are used rather than made: where they lie, what they must agree with, and how rows are packed."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec.core

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import digest
from pretrain.corpus.task import Failure, Pool, Task
from pretrain.order.best_fit import pack_shard, table_name, write_table
from pretrain.order.pack import Rows
from pretrain.shards.catalogue import Catalogue, Entry, read_bytes
from pretrain.shards.foreign import take_over
from pretrain.shards.format import CATALOGUE, dtype_for
from pretrain.shards.shelf import Cache, Shelf
from pretrain.shards.write import write_catalogue
from pretrain.tokenizer.tokenizer import CONFIG, FILE, Tokenizer


def sources_at(place: str) -> dict[str, str]:
    """Places of shards by name: the folder at a path or URL, or those in it, or a .bin file alone. Raises UserError."""
    try:
        system, root = fsspec.core.url_to_fs(place)
        if root.endswith(".bin") and system.isfile(root):
            return {Path(root).parent.name: place if "://" in place else root}
        files = sorted(system.glob(f"{root}/*")) + sorted(system.glob(f"{root}/*/*"))
    except (ImportError, ValueError) as error:
        raise UserError(str(error), where=place, expected="pip install 'pretrain[remote]'") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=place, expected="an address that can") from None
    folders = {file.rpartition("/")[0] for file in files if file.endswith((f"/{CATALOGUE}", ".bin"))}
    chosen = [root.rstrip("/")] if root.rstrip("/") in {one.rstrip("/") for one in folders} else sorted(folders)
    if not chosen:
        expected = f"a folder with {CATALOGUE} or .bin files, or of such folders"
        raise UserError("no token shards", where=place, expected=expected)
    for folder in chosen:
        if {f"{folder.rstrip('/')}/{name}" for name in ("train.bin", "val.bin")} <= set(files):
            what = "val.bin lies beside train.bin, and would be learned from"
            raise UserError(what, where=folder, expected=f'tokens.from = "{folder}/train.bin", or val.bin elsewhere')
    return {one.rpartition("/")[2]: system.unstrip_protocol(one) if "://" in place else one for one in chosen}


def tokenizer_at(places: Mapping[str, str], scratch: Path) -> Path:
    """The tokenizer that lies beside the shards of the first source. Raises UserError where there is none."""
    place = next(iter(places.values())).removesuffix("/")
    place = place.rpartition("/")[0] if place.endswith(".bin") else place
    try:
        data = read_bytes(f"{place}/{FILE}")
    except FileNotFoundError:
        what = "the tokenizer of these shards is not beside them"
        raise UserError(what, where=place, expected="tokenizer.from, a folder with its tokenizer.json") from None
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / FILE).write_bytes(data)
        with suppress(FileNotFoundError):
            (Path(name) / CONFIG).write_bytes(read_bytes(f"{place}/{CONFIG}"))
        found = Tokenizer.load(name)
    found.save(scratch / found.digest)
    return scratch / found.digest


def made_of(place: str, dtype: str) -> dict[str, object]:
    """What a source that lies elsewhere depends on: its catalogue, or its files' sizes, times and `dtype`."""
    try:
        return {"at": place, "catalogue": digest(read_bytes(f"{place}/{CATALOGUE}"))}
    except FileNotFoundError:
        files = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in _bins(place)}
        return {"at": place, "files": files, "dtype": dtype}


def use(place: str, folder: Path, tokenizer: Tokenizer, dtype: str, pool: Pool) -> None:
    """Fills a folder with a catalogue of the shards at a place; tokens stay where they are. Raises UserError."""
    try:
        found = Catalogue.parse(read_bytes(f"{place}/{CATALOGUE}"), folder, place)
    except FileNotFoundError:
        size, end = tokenizer.vocab_size, tokenizer.end
        tasks = [Task(f"reading {path.name}", _take_over, (path, dtype, size, end, folder)) for path in _bins(place)]
        entries = list[Entry]()
        for one in pool.run(tasks):
            if isinstance(one, Failure):
                raise UserError(f"{one.task.name} failed: {one.reason.strip().splitlines()[-1]}") from None
            assert isinstance(one, Entry), "what take_over returns"
            entries.append(one)
        write_catalogue(Catalogue(folder, dtype_for(size).name, size, tokenizer.digest, end, tuple(entries)))
    else:
        write_catalogue(replace(found, at=found.at or place))
    tokenizer.save(folder)


def _bins(place: str) -> list[Path]:
    if "://" in place:
        raise UserError("Megatron-LM's and flat files are read where they lie", where=place, expected="a local folder")
    return [Path(place)] if place.endswith(".bin") else sorted(Path(place).glob("*.bin"))


def _take_over(path: Path, dtype: str, vocab_size: int, end: int | None, folder: Path, journal: object) -> Entry:
    return take_over(path, dtype, vocab_size, end, folder)


def check(name: str, folder: Path, tokenizer: Tokenizer) -> None:
    """Holds a source's shards against the run's tokenizer, and against the folder they lie in. Raises UserError."""
    found = Catalogue.load(folder)
    where = f"tokens of the source {name!r} ({found.at or folder})"
    if found.tokenizer and found.tokenizer != tokenizer.digest:
        what = f"made by another tokenizer ({found.tokenizer[:12]}, {found.vocab_size:,} ids)"
        raise UserError(
            what, where=where, expected=f"{tokenizer.digest[:12]} ({tokenizer.vocab_size:,} ids), the run's"
        )
    here = None if "://" in found.at else {path.name for path in Path(found.at or folder).glob("*.shard")}
    for entry in found.shards:
        if here is not None and entry.name not in here:
            raise DamagedError("the shard is gone", where=found.place(entry), expected="a file of its catalogue")
        if entry.largest >= tokenizer.vocab_size:
            what = f"token id {entry.largest} in {entry.name} is outside the vocabulary"
            raise UserError(what, where=where, expected=f"0 to {tokenizer.vocab_size - 1}")


def unpacked(folder: Path, row: int) -> dict[int, Path]:
    """The tables of best-fit rows that are not there yet, by number of their shard."""
    names = [Path(entry.name).with_suffix(".npy") for entry in Catalogue.load(folder).shards]
    paths = {i: folder / table_name(row) / name for i, name in enumerate(names)}
    return {i: path for i, path in paths.items() if not path.exists()}


def pack(folder: Path, row: int, pool: Pool, cache: Cache) -> None:
    """Writes the tables of best-fit rows that are not there yet, beside the catalogue. Raises UserError."""
    catalogue, todo = Catalogue.load(folder), unpacked(folder, row)
    if "://" in catalogue.at:
        shelf = Shelf(catalogue, cache)
        for number, out in todo.items():
            write_table(shelf.shard(number), row, out)
        return
    places = [Path(catalogue.place(entry)) for entry in catalogue.shards]
    for one in pool.run([Task("packing rows", pack_shard, (places[i], row, out)) for i, out in todo.items()]):
        if isinstance(one, Failure):
            raise UserError(f"{one.task.name} failed: {one.reason.strip().splitlines()[-1]}")


def waste(name: str, rows: Rows) -> str:
    """A sentence on what a source's rows hold, and what they do not."""
    padding = f"{rows.padding:.2%} padding" if rows.packing == "best_fit" else "no padding"
    dropped = f"{rows.dropped_tokens:,} tokens dropped ({rows.dropped_tokens / max(rows.catalogue.tokens, 1):.2%})"
    return f"tokens/{name}: {len(rows):,} {rows.packing} rows of {rows.row:,} tokens, {padding}, {dropped}"
