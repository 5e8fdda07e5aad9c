"""Filling in the middle (Bavarian et al. 2022, arXiv 2207.14255, 3): text is rearranged so that its middle comes last.

PSM: <prefix> prefix <suffix> suffix <middle> middle; SPM, the paper's second form: <prefix> <suffix> suffix <middle>
prefix middle. Cuts fall between tokens. A sample keeps its length: its pieces of documents are rearranged one after the
other, three tokens longer each, until it is full, so it loses its last tokens, three for each.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.random import uniform
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary

PREFIX, SUFFIX, MIDDLE = -1, -2, -3  # places of the sentinels, from the end of text and sentinels together


@dataclass(frozen=True)
class FillInMiddle:
    """Next-token prediction with `rate` of the documents rearranged, `spm` of these suffix first, of `sources` only.

    Documents of all sources, where none is named.
    """

    causal: ClassVar[bool] = True
    ahead: ClassVar[int] = 0
    rate: float = 0.5
    spm: float = 0.5
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.rate <= 1 and 0 <= self.spm <= 1):
            raise ValueError(f"rate = {self.rate}, spm = {self.spm}; expected shares")

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        """Rearranged samples; sentinels are given, not predicted, and weights go where their tokens go.

        A piece that holds specials beside its document's end, or no weight, as padding, stays. Raises UserError.
        """
        if vocabulary.fim is None:
            expected = "<|fim_prefix|>, <|fim_suffix|> and <|fim_middle|> (tokenizer.reserved ≥ 13)"
            raise UserError("the tokenizer has no tokens for filling in", expected=expected)
        most = int((np.diff(batch.documents) != 0).sum(1).max(initial=0)) + 2
        draws = uniform(batch.seed, batch.rows, "fill_in_middle", (most, 4))
        names = ("tokens", "targets", "weights", "documents", "positions")
        made = replace(batch, **{name: getattr(batch, name).copy() for name in names})
        for i in range(len(batch.tokens)):
            if not self.sources or batch.sources[i] in self.sources:
                self._rearrange(batch, made, i, draws[i], vocabulary)
        return made

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        """By name."""
        return {"fill_in_middle": cost(given.hidden, given.targets, given.weights)}

    def _rearrange(self, batch: Batch, made: Batch, i: int, draws: np.ndarray, vocabulary: Vocabulary) -> None:
        """Fills sample i of `made`: first which place of the text stands where, then all that goes with it."""
        text, weights, documents = _whole(batch, i)
        starts = [0, *(np.flatnonzero(np.diff(documents)) + 1), len(text)]
        odd = vocabulary.is_special(text)
        places, piece, room = list[np.ndarray](), list[np.ndarray](), len(text)
        for start, stop, draw in zip(starts[:-1], starts[1:], draws, strict=False):
            count = min(stop - start, room - 3)
            body = np.arange(start, start + count)
            inner = body[:-1] if count > 0 and text[body[-1]] == vocabulary.end else body
            if draw[0] < self.rate and weights[inner].any() and not odd[inner].any():
                body = self._order(inner, body[len(inner) :], draw[1:])
            else:
                body = np.arange(start, min(stop, start + room))
            room -= len(body)
            places.append(body)
            piece.append(np.full(len(body), start))
        place, first = np.concatenate(places), np.concatenate(piece)
        assert vocabulary.fim is not None, "prepare has asked"
        y, own = np.append(text, vocabulary.fim[::-1])[place], np.append(weights, [0, 0, 0])[place]
        target = np.where(place >= 0, y, IGNORE)
        length, known = batch.tokens.shape[1], len(text) - 1
        made.tokens[i], made.documents[i] = y[:length], documents[first[:length]]
        made.targets[i, :known], made.weights[i, :known] = target[1:], own[1:]
        made.positions[i] = _positions(batch.positions[i], first[:length])

    def _order(self, body: np.ndarray, end: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Places of a rearranged piece; both cuts fall anywhere, all places alike."""
        a, b = sorted((draw[1:].astype(np.float64) * (len(body) + 1)).astype(int))
        prefix, middle, suffix = body[:a], body[a:b], body[b:]
        if draw[0] < self.spm:
            return np.concatenate([[PREFIX, SUFFIX], suffix, [MIDDLE], prefix, middle, end])
        return np.concatenate([[PREFIX], prefix, [SUFFIX], suffix, [MIDDLE], middle, end])


def _whole(batch: Batch, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, their own weights and documents of sample i and of the target after it, where that is known.

    Whose document that target is of does not matter: it is the first to be left out.
    """
    tokens, targets, documents = batch.tokens[i], batch.targets[i], batch.documents[i]
    known = len(tokens) + (targets[-1] != IGNORE)
    weights = np.where(targets == IGNORE, 0, batch.weights[i])
    own = np.append(weights[0], weights)[:known]
    return np.append(tokens, targets[-1])[:known], own, np.append(documents, documents[-1])[:known]


def _positions(positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Positions [seq, axes] of pieces that began at places `first` [seq]: as they ran, or anew where they did so."""
    index = np.arange(len(first))
    begins = np.maximum.accumulate(np.where(np.diff(first, prepend=-1) != 0, index, 0))
    return np.where(positions[first] == first[:, None], index[:, None], positions[first] + (index - begins)[:, None])
