"""The stack that every decoder family fills: embedding, blocks, norm, head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pretrain.attention.mask import Causal, Documents, Mask
from pretrain.model.layers.rope import angles


class Cache(Protocol):
    """Keys and values of positions that were seen before."""

    length: int

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer so far, these included: [batch, kv_heads, keys, head_dim]."""
        ...


@dataclass(frozen=True)
class Where:
    """What every block needs to know of the positions: their tokens, rotations, who sees whom, what was seen before."""

    tokens: Tensor
    cos: Tensor
    sin: Tensor
    mask: Mask
    cache: Cache | None = None


class Output(NamedTuple):
    """The last hidden states [batch, seq, embed], and float32 statistics of the blocks [n]."""

    hidden: Tensor
    aux: Tensor


class Decoder(nn.Module):
    """Tokens to hidden states; `head` turns those into logits."""

    frequency: Tensor

    def __init__(self, vocab: int, width: int, blocks: Sequence[nn.Module], norm: nn.Module, frequency: Tensor) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = nn.Linear(width, vocab, bias=False)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Hidden states of tokens [batch, seq]; `documents` [batch, seq] stops attention at their bounds.

        `positions` [batch, seq] follow the cache, if not said.
        """
        if positions is None:
            seen = 0 if cache is None else cache.length
            positions = torch.arange(seen, seen + tokens.shape[1], device=tokens.device)[None]
        dtype = torch.float64 if self.embed.weight.dtype is torch.float64 else torch.float32
        cos, sin = angles(positions, self.frequency, dtype)
        where = Where(tokens, cos, sin, Causal() if documents is None else Documents(documents), cache)
        x = self.embed(tokens)
        aux = x.new_zeros(0, dtype=torch.float32)
        for block in self.blocks:
            x, more = block(x, where)
            aux = aux if more is None else torch.cat([aux, more])
        return Output(self.norm(x), aux)

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, seq, vocab] of tokens [batch, seq]."""
        return self.head(self(tokens).hidden)
