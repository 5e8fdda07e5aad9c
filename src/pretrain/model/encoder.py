"""The stack that every encoder family fills: embeddings, blocks, and a head that predicts what was masked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pretrain.model.decoder import Cache, Head, Output, Where, follow, visible
from pretrain.model.layers.rope import Rotary


class Encoder(nn.Module):
    """Tokens to hidden states, every position seeing all of its document; `head` turns those into logits.

    `embed_norm` norms the sum of embeddings, `norm` the last block's output, `transform` stands before the head: hidden
    states are what it gives. Learned positions start at `first_place`; `kinds` is the number of token types, all 0.
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
        first_place: int = 0,
        kinds: int = 0,
        head_bias: bool = True,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.places = nn.Embedding(places, width) if places else None
        self.kinds = nn.Embedding(kinds, width) if kinds else None
        self.first_place = first_place
        self.rotaries = nn.ModuleList(rotaries)
        self.embed_norm, self.blocks, self.norm, self.transform = embed_norm, nn.ModuleList(blocks), norm, transform
        self.head = Head(width, vocab, bias=head_bias)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        causal: bool = False,
    ) -> Output:
        """Hidden states of tokens [batch, seq]; `documents` [batch, seq] stops attention at their bounds."""
        positions = follow(tokens, 0 if cache is None else cache.length) if positions is None else positions
        dtype = torch.float64 if self.embed.weight.dtype is torch.float64 else torch.float32
        turns = tuple(rotary(positions, dtype) for rotary in self.rotaries)
        where = Where(tokens, visible(documents, causal), turns, cache)
        x = self.embed(tokens)
        if self.kinds is not None:
            x = x + self.kinds.weight[0]
        if self.places is not None:
            x = x + self.places(positions + self.first_place)
        x = self.embed_norm(x)
        aux = x.new_zeros(0, dtype=torch.float32)
        for block in self.blocks:
            x, more = block(x, where)
            aux = aux if more is None else torch.cat([aux, more])
        return Output(self.transform(self.norm(x)), aux)

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, seq, vocab] of tokens [batch, seq]."""
        return self.head(self(tokens).hidden)
