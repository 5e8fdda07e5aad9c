"""What became of one record: where it was found, what every step measured, and where its tokens stand."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from pretrain.base.extension import leaf
from pretrain.corpus.parts import StepFile, Steps
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard

STATE = ("alive", "reason", "text", "language")  # columns of a step that are no measures


@dataclass(frozen=True)
class Entry:
    """A record's verdict, and by step, reading first: why it dropped the record, if it did, and its measures."""

    verdict: dict
    place: str  # where the record stands in its file: "line 10", "byte offset 12345"; "" where it is the whole of it
    steps: list[tuple[str, str | None, dict[str, float | str]]]


def entries(folder: Path, wanted: str) -> list[Entry]:
    """All records with an id or a URL."""
    parts, steps, out = json.loads((folder / "parts.json").read_bytes()), Steps(folder.parent / "steps"), list[Entry]()
    for number, part in enumerate(parts):
        path = folder / "verdicts" / f"{number:05}.parquet"
        names = pa.parquet.read_table(path, columns=["id", "url"])
        match = pa.compute.or_(pa.compute.equal(names["id"], wanted), pa.compute.equal(names["url"], wanted))
        for row in pa.compute.indices_nonzero(match).to_pylist():
            verdict = pa.parquet.read_table(path).slice(row, 1).to_pylist()[0]
            said = [_said(folder, steps, use, name, row) for use, name in part["steps"]]
            base = next(steps.root.glob(f"read-*/{part['base']}.parquet"))
            place = place_in_words(base.parent.name.removeprefix("read-"), verdict["place"])
            out.append(Entry(verdict, place, [*_read(base, row), *said]))
    return out


def place_in_words(read: str, place: int) -> str:
    """Where a record stands in its file, as its reader counts: "line 10"; "" where it is the whole of it."""
    word = getattr(leaf("corpus.read", read), "places", "")
    return f"{word} {place}" if word and place >= 0 else ""


def _said(folder: Path, steps: Steps, use: str, name: str, row: int) -> tuple[str, str | None, dict[str, float | str]]:
    file = StepFile(steps.root / use / f"{name}.parquet")
    values = pa.parquet.read_table(file.path).slice(row, 1).to_pylist()[0]
    if (cluster := values.pop("cluster", None)) is not None and values["cluster_size"] > 1:
        values["first"] = _first(folder, int(cluster))
    return use, values["reason"], {key: v for key, v in values.items() if key not in STATE and v is not None}


def _first(folder: Path, cluster: int) -> str:
    """The URL of the first document of a cluster of copies, whose part and row its number holds."""
    part, row = cluster >> 32, cluster & 0xFFFFFFFF
    if part == 0:
        return "in an earlier corpus"
    table = pa.parquet.read_table(folder / "verdicts" / f"{part - 1:05}.parquet", columns=["url"])
    return str(table["url"][row].as_py())


def _read(base: Path, row: int) -> Iterator[tuple[str, str | None, dict[str, float | str]]]:
    """What the reader counted in a record, if it did: pages without text, say."""
    measures = pa.parquet.read_table(base, columns=["measures"])["measures"][row].as_py()
    if measures is not None:
        yield "read", None, json.loads(measures)


def places(folders: Sequence[Path], identity: str) -> Iterator[tuple[Path, int, int]]:
    """(shard, first token, number of tokens) of a document in folders of shards."""
    for folder in folders:
        catalogue = Catalogue.load(folder)
        for entry in catalogue.shards if "://" not in catalogue.at else ():
            shard = Shard(Path(catalogue.place(entry)))
            for i in shard.find(identity):
                yield folder / entry.name, int(shard.bounds[i]), int(shard.bounds[i + 1] - shard.bounds[i])
