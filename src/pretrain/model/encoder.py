"""The stack that every encoder family fills: embeddings, blocks, and a head that predicts what was masked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from pretrain.model.decoder import Head, Output, Where, follow, visible
from pretrain.model.layers.rope import Rotary


class Transform(nn.Module):
    """norm(gelu(dense x)): what stands before the head since BERT."""

    def __init__(self, width: int, eps: float, *, bias: bool = True) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width, bias=bias), nn.LayerNorm(width, eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] like x."""
        return self.norm(gelu(self.dense(x)))


class Encoder(nn.Module):
    """Tokens to hidden states, every position seeing all of its document; `head` turns those into logits.

    `embed_norm` norms the sum of embeddings, `norm` the last block's output, `transform` stands before the head: hidden
    states are what it gives. Learned `places` are counted from 0, or from the token `padding` on, which itself stands
    at its own number. `kinds` is the number of token types; all tokens are of the first.
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        rotaries: Sequence[Rotary] = (),
        *,
        embed_norm: nn.Module,
        transform: nn.Module,
        places: int = 0,
        padding: int | None = None,
        kinds: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.places = nn.Embedding(places, width) if places else None
        self.kinds = nn.Embedding(kinds, width) if kinds else None
        self.padding = padding
        self.rotaries = nn.ModuleList(rotaries)
        self.embed_norm, self.blocks, self.norm, self.transform = embed_norm, nn.ModuleList(blocks), norm, transform
        self.head = Head(width, vocab, bias=True)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        causal: bool = False,
        part: range | None = None,
        hidden: Tensor | None = None,
    ) -> Output:
        """Hidden states of tokens [batch, seq]; `documents` [batch, seq] stops attention at their bounds.

        `positions` [batch, seq] are counted from 0, if not said. Only a `part` of the blocks runs, if said, on the
        `hidden` states of those before.
        """
        x = self.enter(tokens, positions) if hidden is None else hidden
        positions = follow(tokens, 0) if positions is None else positions
        dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
        turns = tuple(rotary(positions, dtype) for rotary in self.rotaries)
        where = Where(tokens, visible(documents, causal), turns)
        aux = x.new_zeros(0, dtype=torch.float32)
        for number in range(len(self.blocks)) if part is None else part:
            x, more = self.blocks[number](x, where)
            aux = aux if more is None else torch.cat([aux, more])
        if part is not None and part.stop < len(self.blocks):
            return Output(x, aux)
        return Output(self.transform(self.norm(x)), aux)

    def enter(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """[batch, seq, embed] of tokens: what goes into the first block."""
        x = self.embed(tokens)
        if self.kinds is not None:
            x = x + self.kinds.weight[0]
        if self.places is not None:
            x = x + self.places(self.placed(tokens, positions))
        return self.embed_norm(x)

    def placed(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """Rows of the table of places, [batch or 1, seq]."""
        if self.padding is None:
            return follow(tokens, 0) if positions is None else positions
        if positions is not None:
            return positions + (self.padding + 1)
        text = tokens != self.padding
        return text.cumsum(1) * text + self.padding

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, seq, vocab] of tokens [batch, seq]."""
        return self.head(self(tokens).hidden)
