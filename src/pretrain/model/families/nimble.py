"""Nimble, a family of our own: a small decoder that learns in few steps. Only pretrain reads its folders.

Rotary positions, normed queries and keys (Henry et al. 2020, arXiv 2010.04245), squared ReLU (So et al. 2021, arXiv
2109.08668), norms without weights, and outputs that start at zero: the block of modded-nanogpt (Jordan et al. 2024).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu, rms_norm

from pretrain.attention.entrance import attention
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.rope import frequencies, rotate
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "NimbleForCausalLM"
MODEL_TYPE = "pretrain_nimble"
FIXED: dict[str, object] = {}


@dataclass(frozen=True)
class Config:
    """Sizes; `initializer_range` is of the embedding, matrices are drawn with 0.5 / √width."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 1024
    rope_theta: float = 10_000.0
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.head_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} gives {self.num_attention_heads} heads no even width")

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_attention_heads

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        heads = (self.num_attention_heads, self.head_size)
        plain = {"vocab": self.vocab_size, "embed": self.hidden_size, "mlp": self.intermediate_size}
        return {**{name: (size, 1) for name, size in plain.items()}, "q": heads, "kv": heads}


def weights(c: Config) -> list[Weight]:
    """The table; the file's names are our own."""
    ours, every, std = "blocks.{i}.", range(c.num_hidden_layers), 0.5 * c.hidden_size**-0.5

    def row(name: str, axes: str, std: float) -> Weight:
        return Weight(ours + name, ours + name, axes, every, std=std)

    return [
        Weight("embed.weight", "embed.weight", "vocab embed", std=0.5),
        row("q.weight", "q embed", std),
        row("k.weight", "kv embed", std),
        row("v.weight", "kv embed", std),
        row("out.weight", "embed q", 0.0),
        row("up.weight", "mlp embed", std),
        row("down.weight", "embed mlp", 0.0),
        Weight("head.weight", "head.weight", "vocab embed", std=0.0),
    ]


class Norm(nn.Module):
    """x / rms(x) over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Like x."""
        return rms_norm(x, x.shape[-1:])


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.head_size = c.head_size
        self.q, self.k, self.v, self.out = (nn.Linear(c.hidden_size, c.hidden_size, bias=False) for _ in range(4))
        self.up = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        y = rms_norm(x, x.shape[-1:])
        q, k, v = (part(y).unflatten(-1, (-1, self.head_size)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = (rotate(rms_norm(part, part.shape[-1:]), where.cos, where.sin).to(v.dtype) for part in (q, k))
        if where.cache is not None:
            k, v = where.cache.extend(self, k, v)
        x = x + self.out(attention(q, k, v, mask=where.mask).transpose(1, 2).flatten(2))
        return x + self.down(relu(self.up(rms_norm(x, x.shape[-1:]))).square()), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c) for _ in range(c.num_hidden_layers)]
    return Decoder(c.vocab_size, c.hidden_size, blocks, Norm(), frequencies(c.head_size, c.rope_theta, None))
