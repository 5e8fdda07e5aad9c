"""Feed-forward layers."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu

# Under their names in config.json; gelu_new is the tanh form that GPT-2 wrote out (Hendrycks & Gimpel 2016).
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_new": partial(gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
    "relu": relu,
}


class GLU(nn.Module):
    """Gated linear unit (Shazeer 2020, arXiv 2002.05202): down(activation(gate x) · up x).

    `fused` holds gate and up as one matrix `gate_up`.
    """

    def __init__(
        self, width: int, inner: int, *, activation: str = "silu", bias: bool = False, fused: bool = False
    ) -> None:
        super().__init__()
        self.activation, self.fused = ACTIVATIONS[activation], fused
        if fused:
            self.gate_up = nn.Linear(width, 2 * inner, bias=bias)
        else:
            self.gate = nn.Linear(width, inner, bias=bias)
            self.up = nn.Linear(width, inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] like x."""
        if self.fused:
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.down(self.activation(gate) * up)
        return self.down(self.activation(self.gate(x)) * self.up(x))


class MLP(nn.Module):
    """down(activation(up x)), as in the first transformer."""

    def __init__(self, width: int, inner: int, *, activation: str, bias: bool = True) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up = nn.Linear(width, inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] like x."""
        return self.down(self.activation(self.up(x)))
