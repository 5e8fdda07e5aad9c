"""Every kind of mask, small; and how large a tensor was made on the way."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window

IDS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1, 2]])
MASKS: dict[str, Mask] = {
    "full": Full(),
    "causal": Causal(),
    "sliding": Window(2),
    "nothing before": Window(0),
    "two-sided": Window(3, 1),
    "wide": Window(100, 100),
    "documents": Documents(IDS),
    "documents, full": Documents(IDS, causal=False),
    "documents, sliding": Documents(IDS, window=Window(1)),
    "documents, two-sided": Documents(IDS, causal=False, window=Window(2, 2)),
    "prefix": Prefix(torch.tensor([4, 1])),
}


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out
