"""Keys and values of what was seen, so that each token is computed once."""

import torch
from torch import Tensor, nn


class KeyValueCache:
    """Grows by what each layer hands it; `length` counts positions once all layers have."""

    def __init__(self) -> None:
        self.length = 0
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer so far, [batch, kv_heads, keys, head_dim].

        A layer that looks no further back lets only the last `keep` of them be remembered.
        """
        if id(layer) in self._held:
            before = self._held[id(layer)]
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        start = 0 if keep is None else max(k.shape[2] - keep, 0)
        self._held[id(layer)] = (k[:, :, start:], v[:, :, start:])
        return k, v
