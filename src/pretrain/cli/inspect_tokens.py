"""What folders of token shards hold: ours, Megatron-LM's or flat files."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.units import show_bytes
from pretrain.run.tokens import sources_at
from pretrain.shards.catalogue import Catalogue, read_bytes
from pretrain.shards.foreign import read_index
from pretrain.shards.format import CATALOGUE
from pretrain.shards.read import Shard
from pretrain.shards.shelf import Cache, Shelf
from pretrain.tokenizer.tokenizer import FILE, Tokenizer

FIRST, SHOWN = 3, 48  # documents that are shown, and tokens of each


def places(path: str) -> list[str]:
    """Where token shards lie at a path: there, a .bin file by itself, or in folders of it; none where it is no such."""
    here = Path(path)
    if "://" in path:
        return list(sources_at(path).values())
    if here.suffix == ".bin" or (here / CATALOGUE).is_file() or any(here.glob("*.bin")):
        return [path]
    return sorted({str(one.parent) for pattern in (f"*/{CATALOGUE}", "*/*.bin") for one in here.glob(pattern)})


def show(found: list[str], *, verify: bool) -> int:
    """Prints shards, tokens, documents, dtype and the first documents; with `verify`, every token is read."""
    for number, place in enumerate(found):
        if len(found) > 1:
            print(f"{'' if number == 0 else chr(10)}{place}")
        _show(place, verify=verify)
    return 0


def _show(place: str, *, verify: bool) -> None:
    local = Path(place)
    if "://" not in place and not (local / CATALOGUE).is_file():
        return _show_foreign(local)
    try:
        found = Catalogue.parse(read_bytes(f"{place}/{CATALOGUE}"), local, place)
    except FileNotFoundError:
        raise UserError(f"no {CATALOGUE}", where=place, expected="a folder of token shards") from None
    at = found.at or place
    catalogue = Catalogue(local, found.dtype, found.vocab_size, found.tokenizer, found.end, found.shards, at)
    tokenizer = Tokenizer.load(local / FILE) if (local / FILE).is_file() else None
    sizes = [entry.tokens for entry in catalogue.shards] or [0]
    largest = max((entry.largest for entry in catalogue.shards), default=0)
    print(f"{len(catalogue.shards):,} shards of {min(sizes):,} to {max(sizes):,} tokens, at {at}")
    print(f"{catalogue.tokens:,} tokens, {catalogue.documents:,} documents, {catalogue.dtype}")
    print(
        f"{catalogue.vocab_size:,} ids in the vocabulary, the largest in use {largest:,}, document end {catalogue.end}"
    )
    print(f"tokenizer {catalogue.tokenizer or 'not known'}{'' if tokenizer else ', which is not beside the shards'}")
    with tempfile.TemporaryDirectory() as scratch:
        shelf = Shelf(catalogue, Cache(Path(scratch), 2**30))
        for line in _first(shelf.shard(0), tokenizer) if catalogue.shards else ():
            print(line)
        for number, entry in enumerate(catalogue.shards if verify else ()):
            shelf.shard(number).verify()
            print(f"{entry.name}: all {entry.tokens:,} tokens are as they were written")
    return None


def _first(shard: Shard, tokenizer: Tokenizer | None) -> Iterator[str]:
    """The first documents, decoded where that can be done."""
    for number, (start, stop) in enumerate(zip(shard.bounds[:FIRST].tolist(), shard.bounds[1:].tolist(), strict=False)):
        shard.check(start, min(stop, start + SHOWN))
        ids = shard.tokens[start : min(stop, start + SHOWN)]
        said = repr(tokenizer.decode(ids)) if tokenizer else " ".join(map(str, ids.tolist()))
        yield f"{shard.id(number)}  {stop - start:,} tokens: {said}{' …' if stop - start > SHOWN else ''}"


def _show_foreign(place: Path) -> None:
    """Megatron-LM's files with their indexes; of flat ones only the size is known."""
    paths = [place] if place.suffix == ".bin" else sorted(place.glob("*.bin"))
    for path in paths:
        index = path.with_suffix(".idx")
        if index.exists():
            kind, bounds = read_index(index)
            sort = f"Megatron-LM, {bounds[-1]:,} tokens, {len(bounds) - 1:,} documents, {np.dtype(kind).name}"
        else:
            sort = f"flat, {path.stat().st_size // 2:,} tokens if they are of uint16, half as many if of uint32"
        print(f"{path.name}: {sort} ({show_bytes(path.stat().st_size)})")
    print(f'to train on them: tokens.from = "{place}", tokenizer.from = a folder with their tokenizer.json')
