"""Sources that grow while a run goes on: what comes to one is a stratum of its own, "web/1" beside "web".

What a run has begun to learn from stays as it is, in the order that it had; a permutation never grows.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pretrain.base.files import digest, write
from pretrain.corpus.cut import Cut
from pretrain.run.store import KEY, Key

STRATUM_VERSION = 2
LEARNED = "learned.json"  # ids of documents that the run has learned from, and that the new cut holds out

Stored = Callable[[str, Key, Callable[[Path], None]], Path]  # an output of the store, made where it is missing


def strata(cut: Cut, source: str, folders: Mapping[str, Path], stored: Stored) -> dict[str, Cut]:
    """The cuts that a source's tokens are made of, by stratum: `folders` are those that the run was begun with.

    A source that only gained files keeps its strata and gains one; one that lost them again has its first strata; one
    that was changed otherwise begins anew, which makes it another run.
    """
    names = [source, *(f"{source}/{i}" for i in range(1, len(folders)))]
    earlier = {name: Cut(folders[name]) for name in names if name in folders and (folders[name] / KEY).exists()}
    wanted = cut.digest("train", source)
    if not earlier or (len(earlier) == 1 and earlier[source].digest("train", source) == wanted):
        return {source: cut}
    _, *later = earlier.values()
    wholes = [earlier[source].digest("train", source), *(_key(one)["of"] for one in later)]
    for i in range(len(wholes), 0, -1):
        if wholes[i - 1] == wanted:
            return dict(list(earlier.items())[:i])
    files = _key(cut)["sources"][source]["files"]
    lost = bool(later) and not _key(later[-1]).get("files", {}).items() <= files.items()
    if lost or not _grew(_key(earlier[source]), _key(cut)):
        return {source: cut}
    before = [one.digest("train", source) for one in earlier.values()]
    key = {"version": STRATUM_VERSION, "source": source, "of": wanted, "held_out": cut.digest("held_out", source)}
    key |= {"files": files}

    def make(folder: Path) -> None:
        make_stratum(cut, source, list(earlier.values()), folder)

    new = Cut(stored(f"stratum/{source}", {**key, "without": before}, make))
    return {**earlier, f"{source}/{len(earlier)}": new} if new.summary[source]["train"]["documents"] else earlier


def _key(cut: Cut) -> dict[str, Any]:
    return json.loads((cut.folder / KEY).read_text())["key"]


def _grew(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a corpus differs from an earlier one by files that came, and by whole sources, and by nothing else."""
    if {**old, "sources": None} != {**new, "sources": None}:
        return False
    for name in old["sources"].keys() & new["sources"].keys():
        before, after = old["sources"][name], new["sources"][name]
        came = before["files"].items() <= after["files"].items()
        if not came or {**before, "files": None} != {**after, "files": None}:
            return False
    return True


def make_stratum(cut: Cut, source: str, earlier: Sequence[Cut], folder: Path) -> None:
    """The training documents of a source that no earlier cut had, in their order, as a cut; a file in memory."""
    known = _Known([_documents(one, source) for one in earlier])
    ids, size, learned, number = list[str](), 0, list[str](), count()
    (folder / "kept" / source).mkdir(parents=True)
    for path in sorted((cut.folder / "kept" / source).glob("*.parquet")):
        table = pa.parquet.read_table(path)
        rows = table.select(["order", "id", "split", "content"]).to_pylist()
        seen = [row["id"] in known.at(row["order"]) for row in rows]
        learned += [row["id"] for row, there in zip(rows, seen, strict=True) if there and row["split"] == "held_out"]
        mine = [row["split"] == "train" and not there for row, there in zip(rows, seen, strict=True)]
        new = table.filter(pa.array(mine, pa.bool_()))
        ids += [row["id"] + row["content"] for row, own in zip(rows, mine, strict=True) if own]
        size += sum(len(text.as_py().encode()) for text in new["text"])
        pa.parquet.write_table(new, folder / "kept" / source / f"{next(number):05}.parquet", compression="zstd")
    none = {"documents": 0, "bytes": 0, "digest": digest(b"")}
    train = {"documents": len(ids), "bytes": size, "digest": digest("".join(ids).encode())}
    write(folder / "summary.json", json.dumps({source: {"train": train, "held_out": none}}))
    write(folder / LEARNED, json.dumps(learned))


def _documents(cut: Cut, source: str) -> Iterator[tuple[int, str]]:
    """(order, id) of the training documents of a source."""
    for path in sorted((cut.folder / "kept" / source).glob("*.parquet")):
        with pa.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(columns=["order", "id", "split"]):
                for row in batch.to_pylist():
                    if row["split"] == "train":
                        yield row["order"], row["id"]


class _Known:
    """Ids of cuts by their place in the common order: all go through it together, so that few are in memory."""

    def __init__(self, streams: Sequence[Iterator[tuple[int, str]]]) -> None:
        self._streams, self._next = streams, [next(stream, None) for stream in streams]
        self._order, self._ids = -1, set[str]()

    def at(self, order: int) -> set[str]:
        """The ids that stand at a place; it never goes back."""
        if order != self._order:
            self._order, self._ids = order, set()
            for i, stream in enumerate(self._streams):
                while (one := self._next[i]) is not None and one[0] <= order:
                    if one[0] == order:
                        self._ids.add(one[1])
                    self._next[i] = next(stream, None)
        return self._ids


def learned(cuts: Mapping[str, Path]) -> set[str]:
    """Documents that strata's cuts hold out although the run has learned from them."""
    files = [folder / LEARNED for folder in cuts.values() if (folder / LEARNED).exists()]
    return {identity for file in files for identity in json.loads(file.read_bytes())}
