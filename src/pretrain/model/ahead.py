"""Modules that look further ahead than the next token (DeepSeek-AI 2024, DeepSeek-V3, arXiv 2412.19437, 2.2)."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pretrain.base.errors import UserError
from pretrain.model.decoder import Decoder, Where
from pretrain.model.weights import Weight, expand

Later = Callable[[Tensor, int], Tensor]  # embeddings [batch, seq, embed]: those of the tokens so many places on


def later(embedded: Tensor, k: int) -> Tensor:
    """Of a whole sequence."""
    return pad(embedded[:, k:], (0, 0, 0, k))


class Ahead(nn.Module):
    """One more block, on the embedding of a later token beside the states before it; its norm goes before the head.

    The token's part comes first, as in published files; the paper's formula (21) writes it second. `later` is the seam
    of ranks that have a part of every sequence each: tokens come from the others' parts.
    """

    def __init__(self, width: int, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm_hidden, self.norm_token, self.norm = deepcopy(norm), deepcopy(norm), deepcopy(norm)
        self.projection = nn.Linear(2 * width, width, bias=False)
        self.block = deepcopy(block)
        self.later: Later = later

    def forward(self, x: Tensor, embedded: Tensor, where: Where, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """States [batch, seq, embed] like x, the same normed, and the block's statistics.

        Tokens come in as `embedded` and are taken from k places on; past the end stand zeros, which no target needs.
        """
        later = self.later(embedded, k)
        x = self.projection(torch.cat([self.norm_token(later), self.norm_hidden(x)], -1)).to(x.dtype)
        x, aux = self.block(x, where)
        return x, self.norm(x), aux


def every_block(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks of any stack and, where there are some, its modules that look ahead, by name."""
    stacks = [(name, getattr(model, name, ())) for name in ("blocks", "ahead")]
    return [(f"{name}.{number}", one) for name, stack in stacks for number, one in enumerate(stack)]


def add_ahead(model: nn.Module, rows: Sequence[Weight], ahead: int) -> list[Weight]:
    """Gives a decoder modules made like its last block, not yet drawn and where its weights are, until it has `ahead`;
    returns the rows of these.

    They bear our names alone: no family's file has them. Raises UserError for what is no decoder, or has more.
    """
    begin = len(getattr(model, "ahead", ()))
    if begin == ahead:
        return []
    if not isinstance(model, Decoder):
        raise UserError("looking ahead needs a decoder", expected="a family that predicts the next token")
    if begin > ahead:
        what = f"the model has {begin} modules that look ahead, and the objective would leave {begin - ahead} untaught"
        raise UserError(what, expected=f"multi_token with ahead = {begin}, or num_nextn_predict_layers = {ahead}")
    last, width = f"blocks.{len(model.blocks) - 1}.", model.embed.embedding_dim
    with model.embed.weight.device:
        model.ahead.extend(Ahead(width, model.blocks[-1], model.norm) for _ in range(begin, ahead))
    copies = [(last, "block."), *(("norm.", f"{name}.") for name in ("norm_hidden", "norm_token", "norm"))]
    out = []
    for k in range(begin, ahead):
        for weight in expand(rows):
            for old, new in copies:
                if weight.name.startswith(old):
                    name = f"ahead.{k}.{new}{weight.name.removeprefix(old)}"
                    out.append(replace(weight, name=name, file=name))
        name = f"ahead.{k}.projection.weight"
        out.append(Weight(name, name, "embed embed+embed"))
    return out
