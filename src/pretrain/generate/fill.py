"""Fills in hidden tokens with a model that sees both sides: the cloze test (Taylor 1953, Journalism Quarterly 30)."""

from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def fill(model: nn.Module, ids: Sequence[int], mask: int, *, most: int = 5) -> list[list[tuple[int, float]]]:
    """For each place that holds `mask`, the likeliest tokens with their probabilities, the likeliest first."""
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
    hidden = model(tokens, causal=False).hidden[tokens == mask]
    shares, found = model.get_submodule("head")(hidden).float().softmax(-1).topk(most)
    return [list(zip(*place, strict=True)) for place in zip(found.tolist(), shares.tolist(), strict=True)]
