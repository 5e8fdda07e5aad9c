"""Overlap with evaluation sets, by runs of words; each hit names the evaluation, the item's line and the words.

Runs of 13 words as for GPT-3 (Brown et al. 2020, arXiv 2005.14165, C); runs of 8, and the share of an item's words that
they cover, as for Llama 3 (Dubey et al. 2024, arXiv 2407.21783, 5.1.4): `words = 8, min_share = 0.5`, say. A document
with hits is dropped, or with `cut` rid of them as for GPT-3: 200 characters go on either side, then pieces of less than
200 characters, and documents in more than 10 pieces. What is left of one stays one document, an empty line between.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.corpus.document import WORD, Document, Rule
from pretrain.corpus.words import hashes, runs
from pretrain.recipe.schema import key

VERSION = 3
HITS = 1000  # that are named in a document: more is a copy of the set itself


@dataclass(frozen=True)
class Decontaminate:
    """`against` are .jsonl files or folders of them, an item a line; all words of its texts are looked for.

    An item is found where runs of `words` of its words that stand in a document cover more than `min_share` of its
    words; a shorter one, of at least 8 words, as a whole.
    """

    against: tuple[str, ...] = key("evaluation sets: .jsonl files, or folders of them", path=True)
    words: int = key("of a run that is looked for", 13, at_least=1)
    min_share: float = key(
        "an item is found where more than this share of its words is covered", 0.0, at_least=0, at_most=1
    )
    max_items: int = key("items that a document may hold", 0, at_least=0)
    cut: bool = key("take the hits out of a document that holds more items, in place of dropping it", False)
    around: int = key("characters that go with a hit on either side, with `cut`", 200, at_least=0)
    min_piece: int = key("characters of a piece that stays, with `cut`", 200, at_least=0)
    max_pieces: int = key("pieces that a document may be cut into, with `cut`", 10, at_least=1)

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]], list[np.ndarray]]:
        """Sorted hashes, the item of each, the items' names, and the runs of each in their order."""
        keys, owners, names, all_runs = list[np.ndarray](), list[np.ndarray](), list[tuple[str, int]](), []
        for evaluation, line, text in items(self.against):
            ordered = self.runs_of(text)
            if not len(ordered):
                continue
            found = np.unique(ordered)
            keys.append(found)
            owners.append(np.full(len(found), len(names)))
            all_runs.append(ordered)
            names.append((evaluation, line))
        if not keys:
            expected = ".jsonl files with texts"
            raise UserError("decontaminate: no items", where=", ".join(self.against), expected=expected)
        whole, owner = np.concatenate(keys), np.concatenate(owners)
        order = np.argsort(whole, kind="stable")
        return whole[order], owner[order], names, all_runs

    def runs_of(self, text: str) -> np.ndarray:
        """Hashes of the runs of an item's words; of all its words where they are fewer, but at least 8."""
        words = [word.lower() for word in WORD.findall(text)]
        length = min(self.words, len(words))
        return runs(hashes(words), length) if length >= min(self.words, 8) else np.zeros(0, np.uint64)

    @cached_property
    def _lengths(self) -> list[int]:
        """Lengths of the runs that the index holds."""
        return list(range(min(self.words, 8), self.words + 1))

    def edit(self, document: Document) -> tuple[Document, dict[str, float | str]]:
        """The document, cut if so wished; how many items are in it, and which: evaluation, line and words, as JSON."""
        keys, owners, names, all_runs = self._index
        lower = [word.lower() for word in document.words]
        hashed = hashes(lower)
        found: dict[int, dict[int, int]] = {}
        for length in self._lengths:
            here = runs(hashed, length)
            low = np.searchsorted(keys, here, "left")
            for place in np.flatnonzero(np.searchsorted(keys, here, "right") > low).tolist():
                at = int(low[place])
                while at < len(keys) and keys[at] == here[place]:
                    found.setdefault(int(owners[at]), {}).setdefault(int(keys[at]), place)
                    at += 1
        shares = {item: covered(all_runs[item], places, self.words) for item, places in sorted(found.items())}
        hits = [item for item, share in shares.items() if share > self.min_share]
        said = []
        for item in hits[:HITS]:
            first = min(found[item].values())
            words = " ".join(lower[first : first + self.words])
            name, line = names[item]
            said.append({"evaluation": name, "line": line, "share": round(shares[item], 3), "words": words})
        measures: dict[str, float | str] = {"items": float(len(hits)), "hits": ""}
        measures["hits"] = json.dumps(said, ensure_ascii=False) if said else ""
        if not self.cut:
            return document, measures
        pieces = [document.text]
        if len(hits) > self.max_items:
            wanted = np.array([run for item in hits for run in found[item]], np.uint64)
            pieces = between(document.text, self._spans(document.text, hashed, wanted), self.around)
            document = replace(document, text="\n\n".join(one for one in pieces if len(one) >= self.min_piece))
        return document, {**measures, "pieces": float(len(pieces))}

    def _spans(self, text: str, hashed: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Where in a text runs stand, int [runs, 2], by the hashes of its words and those of the runs."""
        words = np.fromiter((end for match in WORD.finditer(text) for end in match.span()), np.int64).reshape(-1, 2)
        spans = list[np.ndarray]()
        for length in self._lengths:
            places = np.flatnonzero(np.isin(runs(hashed, length), wanted))
            spans.append(np.stack([words[places, 0], words[places + length - 1, 1]], 1))
        return np.concatenate(spans)

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        if self.cut:
            return [Rule("pieces", "cut into too many pieces", at_most=self.max_pieces)]
        return [Rule("items", "holds evaluation items", at_most=self.max_items)]


def between(text: str, spans: np.ndarray, around: int) -> list[str]:
    """What is left of a text without spans [start, stop) of it, int [spans, 2], and so many characters around each."""
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    starts = np.append(np.maximum.accumulate(spans[:, 1]) + around, 0)
    starts, stops = np.roll(starts, 1), np.append(spans[:, 0] - around, len(text))
    left = np.flatnonzero(stops > starts)
    return [text[start:stop] for start, stop in zip(starts[left].tolist(), stops[left].tolist(), strict=True)]


def covered(ordered: np.ndarray, found: Mapping[int, int], length: int) -> float:
    """The share of an item's words that stand in a run which was found; its runs are in order, one from each word on.

    A short item is one run, of all its words.
    """
    stands = np.isin(ordered, np.fromiter(found, np.uint64, len(found)))
    if len(ordered) == 1:
        return float(stands[0])
    words = np.zeros(len(ordered) + length, np.int64)
    np.add.at(words, np.flatnonzero(stands), 1)
    np.add.at(words, np.flatnonzero(stands) + length, -1)
    return float((np.cumsum(words)[:-1] > 0).mean())


def items(paths: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    """(evaluation, line, text) of every item, lines from 1 on: each of its texts apart, since a page may hold one."""
    for path in paths:
        root = Path(path)
        files = sorted(root.rglob("*.jsonl")) if root.is_dir() else [root]
        for file in files:
            try:
                lines = file.read_text("utf-8", "replace").splitlines()
            except OSError:
                raise UserError("no such file", where=str(file), expected="evaluation items, .jsonl") from None
            name = str(file.relative_to(root.parent)).removesuffix(".jsonl") if root.is_dir() else file.stem
            for number, line in enumerate(lines):
                try:
                    yield from ((name, number + 1, text) for text in _texts(json.loads(line)))
                except ValueError:
                    raise UserError("no JSON", where=f"{file}:{number + 1}", expected="an item a line") from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
