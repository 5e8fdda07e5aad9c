"""The one way into attention. Rule: torch's fused kernels, on every device and for every mask."""

from collections.abc import Callable

from torch import Tensor

from pretrain.attention.mask import Mask
from pretrain.attention.sdpa import sdpa

Exchange = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


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
    a key without value; `exchange` is the seam where context parallelism trades keys and values.
    """
    if exchange is not None:
        q, k, v = exchange(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return sdpa(q, k, v, mask, scale, softcap, sinks)
