"""What a run learned from: a step to its documents, a document to its steps. Computed from the order, never stored."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Skipped
from pretrain.order.order import ORDER_VERSION, History, Order
from pretrain.order.pack import Rows
from pretrain.recipe.read import load
from pretrain.recipe.tokens import Tokens
from pretrain.shards.shelf import Cache
from pretrain.trace.pages import Page, nearest_url, pages, records
from pretrain.trace.taken import Taken
from pretrain.trace.turns import positions


@dataclass(frozen=True)
class Sighting:
    """Tokens `start` to `stop` of a document in one row of a step; `taken` is False where the step is to come.

    `position` is the row's place in the run; `row` its number in the source, in an `epoch`. URL, file and place in it
    are empty where no corpus in the store knows the document.
    """

    step: int
    taken: bool
    position: int
    source: str
    epoch: int
    row: int
    id: str
    start: int
    stop: int
    url: str = ""
    file: str = ""
    place: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens of the document."""
        return self.stop - self.start


def trace_step(run: Path | str, step: int) -> list[Sighting]:
    """The documents of a step, row after row; a step to come is told as the plan has it. Raises UserError."""
    return Lineage.open(run).step(step)


def trace_document(run: Path | str, wanted: str) -> list[Sighting]:
    """Where a run sees a document, by URL or id, in the order of its steps, those to come included. Raises UserError.

    Empty where the document stands in no row: it was dropped, held out, or did not fill a row.
    """
    lineage = Lineage.open(run)
    return lineage.document(lineage.records(wanted))


@dataclass(frozen=True)
class Lineage:
    """A run with all that leads from its steps to documents."""

    run: RunDirectory
    stages: dict
    taken: Taken

    @classmethod
    def open(cls, path: Path | str) -> "Lineage":
        """Reads a run directory. Raises UserError where nothing was trained there, or by another order."""
        run = RunDirectory(Path(path).absolute())
        stages = json.loads(run.stages.read_bytes()) if run.stages.is_file() else {}
        if "train" not in stages:
            what = "training has not begun" if run.path.is_dir() else "no such folder"
            raise UserError(what, where=str(path), expected="the directory of a run that trains")
        key = stages["train"]["key"]
        if key["order"] != ORDER_VERSION:
            expected = f"version {ORDER_VERSION}, or the pretrain that trained it"
            raise UserError(f"a run of order version {key['order']}", where=str(path), expected=expected)
        rows = key["train"]["batch"] // row_of(key)
        return cls(run, stages, Taken.of(run, stages["train"]["steps"], rows))

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """The rows of all sources that the run has learned from. Raises UserError where shards are gone."""
        key, out = self.stages["train"]["key"], dict[str, Rows]()
        said = load(str(self.run.recipe)).tokens if self.run.recipe.is_file() else Tokens()
        cache = Cache(self.run.store / "cache", said.cache_bytes)
        for name, folder in self.stages["folders"].items():
            if name.startswith("tokens/"):
                path = self.run.store / folder
                if not path.exists():
                    what = f"the shards of the source {name.removeprefix('tokens/')!r} are gone"
                    expected = "`pretrain run RECIPE --to tokens`, which makes the same again"
                    raise UserError(what, where=str(path), expected=expected)
                out[name.removeprefix("tokens/")] = Rows(path, row_of(key), key["packing"], cache)
        return out

    @cached_property
    def order(self) -> Order:
        """The order, with all that happened to it."""
        sizes = {name: len(rows) for name, rows in self.rows.items()}
        return Order(self.stages["train"]["key"]["seed"], sizes, History.from_json(self.stages["history"]))

    @property
    def corpora(self) -> list[Path]:
        """The run's corpus, if it is there, then the store's others: they know sources that the run left behind."""
        own = self.run.store / self.stages["folders"]["corpus"]
        others = sorted(path.parent for path in self.run.store.glob("corpus-*/key.json"))
        return [path for path in [own, *(one for one in others if one != own)] if (path / "key.json").exists()]

    def step(self, step: int) -> list[Sighting]:
        """The documents of a step."""
        if not 1 <= step <= self.taken.planned:
            what = f"step {step:,} is not in the plan"
            raise UserError(what, where=str(self.run.path), expected=f"1 to {self.taken.planned:,}")
        rows = self.taken.rows_of(step)
        return self._described(self._sightings(np.arange(rows.start, rows.stop)))

    def skipped(self) -> list[tuple[Skipped, list[Sighting]]]:
        """What was passed over, with its documents: they are told under the step that was not taken with them."""
        out = []
        for one in self.taken.skipped:
            at = np.arange(one.position, one.position + one.rows)
            out.append((one, self._described(self._sightings(at, one.step))))
        return out

    def records(self, wanted: str) -> list[Page]:
        """The records with a URL or an id. Raises UserError with the nearest URL where nothing knows it."""
        if found := records(self.corpora, wanted):
            return found
        if re.fullmatch("[0-9a-f]{32}", wanted):  # shards that came without a corpus
            found = [Page(wanted, "", source, "", 0) for source, rows in self.rows.items() if rows.find(wanted)]
        elif not self.corpora:
            path = self.run.store / self.stages["folders"]["corpus"]
            expected = "`pretrain run RECIPE --to corpus`, which makes the same again"
            raise UserError("the corpus of this run is gone", where=str(path), expected=expected)
        if not found:
            near = nearest_url(self.corpora, wanted)
            raise UserError(f"no document {wanted!r}", where=str(self.run.path), expected="a URL or an id", near=near)
        return found

    def document(self, found: Iterable[Page]) -> list[Sighting]:
        """Where the run sees some records."""
        ids, where = {page.id for page in found}, set[int]()
        for source, rows in self.rows.items():
            own = {row for identity in ids for row in rows.find(identity)}
            where.update(positions(self.order, source, own, self.taken.end))
        every = self._sightings(np.array(sorted(where), np.int64))
        return self._described([one for one in every if one.id in ids])

    def _sightings(self, at: np.ndarray, skipped: int | None = None) -> list[Sighting]:
        """What stands at positions that steps consume, or that were passed over for step `skipped`."""
        out, (sources, epochs, numbers) = list[Sighting](), self.order.at(at)
        for position, source, epoch, row in zip(*(one.tolist() for one in (at, sources, epochs, numbers)), strict=True):
            step, name = skipped or self.taken.step_at(position), self.order.sources[source]
            if step is None:
                continue
            for span in self.rows[name].documents(row):
                taken = skipped is None and step <= self.taken.step
                out.append(Sighting(step, taken, position, name, epoch, row, span.id, span.start, span.stop))
        return out

    def _described(self, found: list[Sighting]) -> list[Sighting]:
        known = pages(self.corpora, {one.id for one in found})
        out = list[Sighting]()
        for one in found:
            page = known.get(one.id)
            out.append(replace(one, url=page.url, file=page.file, place=page.place) if page else one)
        return out


def row_of(key: dict) -> int:
    """Tokens in a row, as the key of a run's training says it."""
    return key["row"] or key["train"]["sequence"]
