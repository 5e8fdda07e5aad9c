"""The one way into attention, and the rule by which a backend is chosen."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from pretrain.attention import flash
from pretrain.attention.flex import flex
from pretrain.attention.mask import Causal, Full, Mask
from pretrain.attention.sdpa import sdpa


class Attend(Protocol):
    """Attention whose scale, soft cap and sinks are said."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask) -> Tensor:
        """As `attention`; fewer queries than keys are the last ones."""
        ...


class Exchange(Protocol):
    """The seam where context parallelism trades keys and values, and whatever else is needed of other places: what a
    rank computes is of some of the sequence's."""

    def whole(self, *parts: Tensor) -> list[Tensor]:
        """The whole sequence's [batch, heads, keys, …] of each rank's part."""
        ...

    def own(self, whole: Tensor) -> Tensor:
        """A rank's part of the whole sequence's [batch, seq]."""
        ...

    def __call__(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """Attention of a rank's queries over the keys of all, or over k and v that are whole already."""
        ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    exchange: Exchange | None = None,
) -> Tensor:
    """[batch, heads, seq, value_dim] of q [batch, heads, seq, head_dim], and of k and v [batch, kv_heads, keys, …].

    `scale` is 1 / √head_dim if not said; `softcap` c bends scores to c · tanh(score / c); `sinks` [heads] are scores of
    a key without value; with an `exchange`, queries, keys and values are a rank's part of a sequence.
    """
    if exchange is not None:
        return exchange(partial(attention, scale=scale, softcap=softcap, sinks=sinks), q, k, v, mask)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    name = backend(q, k, v, mask, softcap, sinks)
    if name == "flash":
        return flash.flash(q, k, v, mask, scale, softcap)
    return (flex if name == "flex" else sdpa)(q, k, v, mask, scale, softcap, sinks)


def backend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, softcap: float | None, sinks: Tensor | None) -> str:
    """Which one computes this: "sdpa", "flash" or "flex".

    Not on a GPU, sdpa. On one, flash where it is installed and computes it; flex where sdpa would go piece by piece
    (windows, documents, prefixes, soft caps, sinks, queries of a part of a sequence); sdpa for what is one kernel's
    call, and for few queries after a cache, of which no gradient is asked.
    """
    if q.device.type != "cuda":
        return "sdpa"
    if flash.suits(q, k, v, mask, sinks):
        return "flash"
    fewer = q.shape[2] != k.shape[2]
    whole = softcap is None and sinks is None and isinstance(mask, Full if fewer else Full | Causal)
    after_cache = fewer and not q.requires_grad
    suits = min(q.shape[-1], v.shape[-1]) >= 16 and q.dtype is not torch.float64
    return "flex" if suits and not whole and not after_cache else "sdpa"
