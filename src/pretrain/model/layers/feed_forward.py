"""Feed-forward layers."""

from torch import Tensor, nn
from torch.nn.functional import silu


class GLU(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): down(silu(gate x) · up x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] like x."""
        return self.down(silu(self.gate(x)) * self.up(x))
