"""A quality classifier: logistic regression over hashed words and their pairs (Joulin et al. 2017, arXiv 1607.01759).

It is trained on first use, from examples that the recipe names, in an order that `seed` gives: the same on any machine.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.random import generator
from pretrain.corpus.document import WORD, Document, Rule
from pretrain.corpus.words import hashes, runs
from pretrain.recipe.schema import key

VERSION = 2
WORDS = 512  # of a document that are looked at
RATE = 0.5  # of learning, which falls to 0


@dataclass(frozen=True)
class Classifier:
    """`positive` and `negative` are files of examples: .jsonl with `text`, or text, a paragraph an example."""

    positive: tuple[str, ...] = key("files of examples of what to keep", (), path=True)
    negative: tuple[str, ...] = key("files of examples of what to drop", (), path=True)
    min_quality: float = key("probability of being like the positive examples", 0.5, at_least=0, at_most=1)
    buckets: int = key("weights that words and pairs are hashed into", 2**18, at_least=1)
    epochs: int = key("passes over the examples", 5, at_least=1)
    seed: int = key("of the order of the examples", 0, at_least=0)

    @cached_property
    def _weights(self) -> np.ndarray:
        """float32 [buckets + 1], the last one the bias. Raises UserError where a side has no examples."""
        sides = [[self.features(text) for text in examples(paths)] for paths in (self.negative, self.positive)]
        for name, side in zip(("negative", "positive"), sides, strict=True):
            if not side:
                raise UserError(f"classifier: no {name} examples", expected=f"{name} = [files with text]")
        rows = [(features, label) for label, side in enumerate(sides) for features in side]
        share = np.array([0.5 / len(side) for side in sides]) * len(rows)  # both sides weigh the same
        weights, turn = np.zeros(self.buckets + 1), 0
        for epoch in range(self.epochs):
            for row in generator(self.seed, "classifier", epoch).permutation(len(rows)):
                features, label = rows[row]
                rate = RATE * (1 - turn / (self.epochs * len(rows)))
                step = rate * share[label] * (label - probability(weights, features))
                np.add.at(weights, features, step / np.sqrt(len(features)))
                turn += 1
        return weights.astype(np.float32)

    def features(self, text: str) -> np.ndarray:
        """Buckets of the first words and pairs of words, and the bias."""
        words = [match[0].lower() for match, _ in zip(WORD.finditer(text), range(WORDS), strict=False)]
        keys = hashes(words)
        found = np.concatenate([keys, runs(keys, 2)]) % np.uint64(self.buckets)
        return np.append(found.astype(np.int64), self.buckets)

    def measure(self, document: Document) -> dict[str, float]:
        """The probability that a document is like the positive examples."""
        return {"quality": probability(self._weights, self.features(document.text))}

    def rules(self) -> list[Rule]:
        """What must hold for a document to stay."""
        return [Rule("quality", "low quality", at_least=self.min_quality)]


def probability(weights: np.ndarray, features: np.ndarray) -> float:
    """Of the positive side."""
    total = float(weights[features].sum(dtype=np.float64)) / np.sqrt(len(features))
    return float(1 / (1 + np.exp(-np.clip(total, -30, 30))))


def examples(paths: tuple[str, ...]) -> Iterator[str]:
    """Texts of files. Raises UserError for a missing file."""
    for path in paths:
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError:
            raise UserError("no such file", where=path, expected="examples, .jsonl or text") from None
        if path.endswith(".jsonl"):
            yield from (json.loads(line)["text"] for line in text.splitlines() if line.strip())
        else:
            yield from (paragraph for paragraph in text.split("\n\n") if len(paragraph.split()) >= 20)
