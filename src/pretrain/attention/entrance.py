"""The one way into attention. Rule: a soft cap needs the plain formula; everything else takes torch's fused kernels."""

from collections.abc import Callable

from torch import Tensor

from pretrain.attention.mask import Mask
from pretrain.attention.plain import plain
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
    exchange: Exchange | None = None,
) -> Tensor:
    """[batch, heads, seq, head_dim] of q like it, and of k and v [batch, kv_heads, keys, head_dim].

    `scale` is 1 / √head_dim if not said; `exchange` is the seam where context parallelism trades keys and values.
    """
    if exchange is not None:
        q, k, v = exchange(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return sdpa(q, k, v, mask, scale) if softcap is None else plain(q, k, v, mask, scale, softcap)
