"""The stack that every decoder family fills: embedding, blocks, norm, head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pretrain.attention.mask import Causal, Documents, Full, Mask
from pretrain.model.layers.rope import Rotary, Turn


class Cache(Protocol):
    """Keys and values of positions that were seen before."""

    length: int

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer so far, these included, [batch, kv_heads, keys, head_dim]; the last `keep` of
        them are remembered."""
        ...


@dataclass(frozen=True)
class Where:
    """What every block needs to know of the positions: their tokens, who sees whom, their turns (one for each rotary
    table of the stack), what was seen before, and which of them statistics count (all, if not said)."""

    tokens: Tensor
    mask: Mask
    turns: tuple[Turn, ...] = ()
    cache: Cache | None = None
    counted: Tensor | None = None


class Output(NamedTuple):
    """The last hidden states [batch, seq, embed], float32 statistics of the blocks [n], and, where they were asked for,
    the hidden states of the modules that look further ahead."""

    hidden: Tensor
    aux: Tensor
    ahead: tuple[Tensor, ...] = ()


class Head(nn.Linear):
    """Hidden states to logits, bent to softcap · tanh(logits / softcap) where a family does so."""

    def __init__(self, width: int, vocab: int, *, bias: bool = False, softcap: float | None = None) -> None:
        super().__init__(width, vocab, bias=bias)
        self.softcap = softcap
        self.shared: object | None = None  # set where ranks hold a part of the vocabulary each

    def forward(self, hidden: Tensor) -> Tensor:
        """[…, vocab] of hidden states […, embed]."""
        logits = super().forward(hidden)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def visible(documents: Tensor | None, causal: bool) -> Mask:
    """Who sees whom; documents [batch, seq] are counted once for all layers."""
    if documents is None:
        return Causal() if causal else Full()
    mask = Documents(documents, causal)
    return Documents(documents, causal, lengths=mask.counted())


def follow(tokens: Tensor, seen: int) -> Tensor:
    """Positions [1, seq] of tokens after so many seen ones."""
    return torch.arange(seen, seen + tokens.shape[1], device=tokens.device)[None]


class Decoder(nn.Module):
    """Tokens to hidden states; `head` turns those into logits.

    `rotaries` are the rotary tables that its blocks choose from by number; `places` the number of learned positions.
    Embeddings are multiplied by `embed_scale`, the last hidden states by `hidden_scale`.
    """

    embed_scale: Tensor | None

    def __init__(
        self,
        vocab: int,
        width: int,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        rotaries: Sequence[Rotary] = (),
        *,
        places: int = 0,
        embed_scale: float | None = None,
        hidden_scale: float | None = None,
        softcap: float | None = None,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.places = nn.Embedding(places, width) if places else None
        self.rotaries = nn.ModuleList(rotaries)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = Head(width, vocab, bias=head_bias, softcap=softcap)
        # A buffer, so that it is rounded to the dtype of the embeddings, as the published implementation does.
        scale = None if embed_scale is None else torch.tensor(embed_scale, device="cpu")
        self.register_buffer("embed_scale", scale, persistent=False)
        self.hidden_scale = hidden_scale
        self.ahead = nn.ModuleList()  # model/ahead.py fills it

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        causal: bool = True,
        ahead: bool = False,
        counted: Tensor | None = None,
        part: range | None = None,
        hidden: Tensor | None = None,
    ) -> Output:
        """Hidden states of tokens [batch, seq]; `documents` [batch, seq] stops attention at their bounds.

        `positions` [batch, seq] follow the cache, if not said. With `ahead`, the modules that look further run as well.
        Statistics are of the tokens that are `counted` [batch, seq]. Only a `part` of the blocks runs, if said, on the
        `hidden` states of those before.
        """
        if positions is None:
            positions = follow(tokens, 0 if cache is None else cache.length)
        embedded, x = self.enter(tokens, positions) if hidden is None else (hidden, hidden)
        dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
        turns = tuple(rotary(positions, dtype) for rotary in self.rotaries)
        where = Where(tokens, visible(documents, causal), turns, cache, counted)
        aux = x.new_zeros(0, dtype=torch.float32)
        for number in range(len(self.blocks)) if part is None else part:
            x, more = self.blocks[number](x, where)
            aux = aux if more is None else torch.cat([aux, more])
        if part is not None and part.stop < len(self.blocks):
            return Output(x, aux)
        if ahead and hidden is not None:
            embedded = self.embedded(tokens)
        states = [x := self.norm(x)]
        for k, module in enumerate(self.ahead if ahead else (), 1):
            x, normed, more = module(x, embedded, where, k)
            states.append(normed)
            aux = aux if more is None else torch.cat([aux, more])
        hidden, *further = states if self.hidden_scale is None else [one * self.hidden_scale for one in states]
        return Output(hidden, aux, tuple(further))

    def embedded(self, tokens: Tensor) -> Tensor:
        """Embeddings [batch, seq, embed] of tokens."""
        x = self.embed(tokens)
        return x if self.embed_scale is None else x * self.embed_scale

    def enter(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of tokens, and what goes into the first block."""
        x = self.embedded(tokens)
        return x, x if self.places is None else x + self.places(positions)

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, seq, vocab] of tokens [batch, seq]."""
        return self.head(self(tokens).hidden)
