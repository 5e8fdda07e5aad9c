"""Samples continuations: temperature, top-k (Fan et al. 2018), top-p (Holtzman et al. 2020, arXiv 1904.09751)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.base.random import uniform
from pretrain.generate.cache import KeyValueCache


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    copies: int = 1,
    tokens: int = 128,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    end: int | None = None,
    cached: bool = True,
) -> list[list[int]]:
    """`copies` continuations of a prompt of one token or more; each stops after `end`. Temperature 0 takes the best.

    The draw of a token depends on the seed, the copy and the token's place alone: with and without the cache the same.
    """
    device = next(model.parameters()).device
    whole = torch.tensor([list(prompt)] * copies, device=device)
    cache = KeyValueCache() if cached else None
    draws = uniform(seed, np.arange(copies), "sample", (tokens,))
    fresh, alive = whole, np.ones(copies, bool)
    out: list[list[int]] = [[] for _ in range(copies)]
    for i in range(tokens):
        hidden = model(fresh if cached else whole, cache=cache).hidden[:, -1]
        if cache is not None:
            cache.length += fresh.shape[1]
        chosen = choose(model.get_submodule("head")(hidden).float(), draws[:, i], temperature, top_k, top_p)
        for copy, token in enumerate(chosen.tolist()):
            if alive[copy]:
                out[copy].append(token)
                alive[copy] = token != end
        if not alive.any():
            break
        fresh = chosen[:, None]
        whole = torch.cat([whole, fresh], 1)
    return out


def choose(logits: Tensor, draws: np.ndarray, temperature: float, top_k: int, top_p: float) -> Tensor:
    """One token a row of logits [batch, vocab], by inverting the cumulative distribution at draws [batch] in [0, 1)."""
    if temperature == 0:
        return logits.argmax(-1)
    ordered, ids = (logits / temperature).sort(dim=-1, descending=True, stable=True)
    if top_k:
        ordered[:, top_k:] = float("-inf")
    p = ordered.double().softmax(-1)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0)
    cumulative = p.cumsum(-1)
    at = torch.from_numpy(draws.astype(np.float64)).to(logits.device)[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, at, right=True).clamp_max(logits.shape[-1] - 1)
    return ids.gather(-1, place)[:, 0]
