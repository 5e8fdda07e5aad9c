"""Likelihood of documents: nats a token, perplexity, bits a byte."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from pretrain.evaluate.share import shared, total
from pretrain.objective.cross_entropy import token_logprobs
from pretrain.parallel.apply import Ranks
from pretrain.tokenizer.tokenizer import Tokenizer

ROWS = 16  # windows in a forward pass


@dataclass(frozen=True)
class Likelihood:
    """Total -log p in nats of all tokens, document ends included, and UTF-8 bytes of the text alone."""

    nats: float
    tokens: int
    bytes: int
    documents: int

    @property
    def nats_per_token(self) -> float:
        """Mean -log p of a token."""
        return self.nats / max(self.tokens, 1)

    @property
    def perplexity(self) -> float:
        """exp of the mean -log p of a token."""
        return math.exp(min(self.nats_per_token, 700))

    @property
    def bits_per_byte(self) -> float:
        """Bits that a byte of the text costs: comparable between tokenizers."""
        return self.nats / math.log(2) / max(self.bytes, 1)


@torch.no_grad()
def likelihood(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    sequence: int,
    limit_bytes: int | None = None,
    ranks: Ranks | None = None,
) -> Likelihood:
    """Scores each document on its own, every token once, its end too; all `ranks` of the model call it, and share.

    The first token is predicted from the document-end token (from nothing, hence not at all, if there is none). Longer
    documents are scored in windows of `sequence` tokens that advance by half: each token sees half a window or more.
    Documents are taken whole until `limit_bytes` are reached.
    """
    nats, tokens, size, documents, ranks = 0.0, 0, 0, 0, ranks or Ranks()

    def every() -> Iterator[tuple[list[int], int]]:
        nonlocal tokens, size, documents
        for text in texts:
            if limit_bytes is not None and size >= limit_bytes:
                break
            ids = tokenizer.encode(text).tolist()
            ids = ids if tokenizer.end is None else [tokenizer.end, *ids, tokenizer.end]
            size, documents, tokens = size + len(text.encode()), documents + 1, tokens + max(len(ids) - 1, 0)
            yield from windows(ids, sequence)

    found = every()
    for batch, counts in shared(iter(lambda: list(islice(found, ROWS)), []), ranks):
        nats += _nats(model, batch) * counts
    return Likelihood(total(nats, ranks, next(model.parameters()).device), tokens, size, documents)


def _nats(model: nn.Module, batch: Sequence[tuple[list[int], int]]) -> float:
    """-log p of the windows' ids from the place on that is said beside them."""
    longest, device = max(len(ids) for ids, _ in batch), next(model.parameters()).device
    grid = torch.zeros(len(batch), longest, dtype=torch.long)
    scored = torch.zeros(len(batch), longest - 1, dtype=torch.bool)
    for i, (ids, first) in enumerate(batch):
        grid[i, : len(ids)] = torch.tensor(ids)
        scored[i, first - 1 : len(ids) - 1] = True
    grid = grid.to(device)
    logprobs = token_logprobs(model.get_submodule("head")(model(grid[:, :-1]).hidden), grid[:, 1:])
    return float(-logprobs.double()[scored.to(device)].sum())


def windows(ids: list[int], sequence: int) -> Iterator[tuple[list[int], int]]:
    """(up to sequence + 1 ids, place of the first that is scored there): every id but the first is scored once."""
    done, stride = 1, max(sequence // 2, 1)
    while done < len(ids):
        stop = min(len(ids), sequence + 1 if done == 1 else done + stride)
        start = max(0, stop - sequence - 1)
        yield ids[start:stop], done - start
        done = stop
