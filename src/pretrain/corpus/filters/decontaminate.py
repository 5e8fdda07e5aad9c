"""Overlap with evaluation sets, by runs of words; each hit names the evaluation, the item and the words.

Runs of 13 as for GPT-3 (Brown et al. 2020, arXiv 2005.14165, C); 8, and a share of an item's runs, as for Llama 3
(Dubey et al. 2024, arXiv 2407.21783, 5.1.4).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.corpus.document import WORD, Document, Rule
from pretrain.corpus.words import hashes, runs

HITS = 20  # that are named in a document


@dataclass(frozen=True)
class Decontaminate:
    """`against` are .jsonl files or folders of them, an item a line; all words of its texts are looked for.

    An item is found where more than `min_share` of its runs of `words` words stand in a document; a shorter one, of at
    least 8 words, as a whole.
    """

    against: tuple[str, ...]
    words: int = 13
    min_share: float = 0.0
    max_items: int = 0

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]], np.ndarray]:
        """Sorted hashes, the item of each, the items' names, and how many runs each has."""
        keys, owners, names, counts = list[np.ndarray](), list[np.ndarray](), list[tuple[str, int]](), list[int]()
        for evaluation, number, text in items(self.against):
            found = np.unique(self.runs_of(text))
            if not len(found):
                continue
            keys.append(found)
            owners.append(np.full(len(found), len(names)))
            counts.append(len(found))
            names.append((evaluation, number))
        if not keys:
            raise UserError(
                "decontaminate: no items", where=", ".join(self.against), expected=".jsonl files with texts"
            )
        whole, owner = np.concatenate(keys), np.concatenate(owners)
        order = np.argsort(whole, kind="stable")
        return whole[order], owner[order], names, np.array(counts)

    def runs_of(self, text: str) -> np.ndarray:
        """Hashes of the runs of an item's words; of all its words where they are fewer, but at least 8."""
        words = [word.lower() for word in WORD.findall(text)]
        length = min(self.words, len(words))
        return runs(hashes(words), length) if length >= min(self.words, 8) else np.zeros(0, np.uint64)

    @cached_property
    def _lengths(self) -> list[int]:
        """Lengths of the runs that the index holds."""
        return list(range(min(self.words, 8), self.words + 1))

    def measure(self, document: Document) -> dict[str, float | str]:
        """How many items are in a document, and which: evaluation, item and words, as JSON."""
        keys, owners, names, counts = self._index
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
        hits = [(item, runs_) for item, runs_ in sorted(found.items()) if len(runs_) > self.min_share * counts[item]]
        said = []
        for item, places in hits[:HITS]:
            first = min(places.values())
            share = round(len(places) / float(counts[item]), 3)
            words = " ".join(lower[first : first + self.words])
            said.append({"evaluation": names[item][0], "item": names[item][1], "share": share, "words": words})
        return {"items": float(len(hits)), "hits": json.dumps(said, ensure_ascii=False) if said else ""}

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [Rule("items", "holds evaluation items", at_most=self.max_items)]


def items(paths: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    """(evaluation, number, text) of every item: all strings of a line's table that are sentences, as one text."""
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
                    yield from ((name, number, text) for text in _texts(json.loads(line)))
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
