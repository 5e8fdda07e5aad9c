"""Where documents are from: their ids to URLs and places in files, and a URL to its records."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pretrain.base.errors import nearest
from pretrain.base.random import key
from pretrain.corpus.ledger import place_in_words

COLUMNS = ("id", "url", "source", "file", "place")
LIKELY = 20_000  # URLs, of the same site if there are any, among which the nearest is looked for


@dataclass(frozen=True)
class Page:
    """A record: its id, where it was found, and where it stands in which file (byte offset, line or member).

    `split` is "train", "held_out" or "dropped" by the step `step` for a `reason`.
    """

    id: str
    url: str
    source: str
    file: str
    place: int
    split: str = "train"
    step: str | None = None
    reason: str | None = None
    where: str = ""  # `place` in words, "line 10"; "" where the record is the whole of its file


def pages(corpora: Sequence[Path], ids: Set[str]) -> dict[str, Page]:
    """The kept documents with some ids, from the first corpus that has them.

    Kept documents lie in the order of a keyed hash of their group or id: only parts of files that can hold one are
    read, and those in groups are looked for from end to end.
    """
    found: dict[str, Page] = {}
    for corpus in corpora:
        files = sorted((corpus / "kept").glob("*/*.parquet"))
        seed = json.loads((corpus / "key.json").read_bytes())["key"].get("seed", 0)
        draws = sorted(key(seed, "documents", one) for one in ids - found.keys())
        for narrow in (draws, None):
            if left := ids - found.keys():
                found |= {page.id: page for path in files for page in _rows(path, left, narrow)}
    return found


def _rows(path: Path, ids: Set[str], draws: list[int] | None) -> Iterator[Page]:
    """Documents of a file, from its row groups that can hold one of some draws, or from all."""
    with pq.ParquetFile(path) as file:
        groups = list(range(file.num_row_groups))
        if draws is not None:
            column = file.schema_arrow.get_field_index("order")
            groups = [group for group in groups if _holds(file.metadata.row_group(group).column(column), draws)]
        for group in groups:
            match = pc.is_in(file.read_row_group(group, ["id"])["id"], pa.array(sorted(ids)))
            if pc.any(match).as_py():
                rows = file.read_row_group(group, list(COLUMNS)).filter(match).to_pylist()
                yield from (Page(**row) for row in rows)


def _holds(column: pq.ColumnChunkMetaData, draws: list[int]) -> bool:
    """Whether one of some sorted draws lies between the least and the most of a column's part."""
    stands = column.statistics
    at = bisect_left(draws, stands.min)
    return at < len(draws) and draws[at] <= stands.max


def records(corpora: Sequence[Path], wanted: str) -> list[Page]:
    """All records with an id or a URL, from the first corpus that has one."""
    for corpus in corpora:
        found = list[Page]()
        sources = json.loads((corpus / "key.json").read_bytes())["key"].get("sources", {})
        read = {name: one["read"] for name, one in sources.items()}
        for path in sorted((corpus / "verdicts").glob("*.parquet")):
            match = (pc.field("id") == wanted) | (pc.field("url") == wanted)
            table = pq.read_table(path, columns=[*COLUMNS, "split", "step", "reason"], filters=match)
            found += [Page(**row, where=place_in_words(read[row["source"]], row["place"])) for row in table.to_pylist()]
        if found:
            return found
    return []


def nearest_url(corpora: Sequence[Path], wanted: str) -> str:
    """The URL most like one that no corpus has, of the same site if there are any; "" where none is close."""
    site = "/".join(wanted.split("/")[:3]) if "://" in wanted else wanted
    same, some = list[str](), list[str]()
    for path in (path for corpus in corpora for path in sorted((corpus / "verdicts").glob("*.parquet"))):
        urls = pq.read_table(path, columns=["url"])["url"]
        same += urls.filter(pc.starts_with(urls, site)).slice(0, LIKELY - len(same)).to_pylist()
        some += urls.slice(0, LIKELY - len(some)).to_pylist()
    return nearest(wanted, same or some)
