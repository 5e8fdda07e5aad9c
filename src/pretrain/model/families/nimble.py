"""Nimble, a family of our own: a small decoder that learns in few steps. Only pretrain reads its folders.

Rotary positions, normed queries and keys (Henry et al. 2020, arXiv 2010.04245), squared ReLU (So et al. 2021, arXiv
2109.08668), norms without weights, and outputs that start at zero: the block of modded-nanogpt (Jordan et al. 2024).
Embeddings of hashed token pairs and triples, where `gram_buckets` asks for them (as Huang et al. 2025, arXiv
2501.16975), spare the first layers what they would learn slowest.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import pad, relu, rms_norm

from pretrain.attention.entrance import Exchange, attention
from pretrain.attention.mask import Documents
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.rope import Rotary, rotate
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "NimbleForCausalLM"
MODEL_TYPE = "pretrain_nimble"
FIXED: dict[str, object] = {}
GRAMS = ("blocks.0.grams.pairs.weight", "blocks.0.grams.triples.weight")


@dataclass(frozen=True)
class Config:
    """Sizes. `gram_buckets`: rows of each table of hashed token pairs and triples, 0 for none."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    gram_buckets: int = 0
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
        plain["gram_vocab"] = self.gram_buckets
        return {**{name: (size, 1) for name, size in plain.items()}, "q": heads, "kv": heads}


def weights(c: Config) -> list[Weight]:
    """The table; the file's names are our own."""
    ours, every, std = "blocks.{i}.", range(c.num_hidden_layers), 0.5 * c.hidden_size**-0.5

    def row(name: str, axes: str, std: float) -> Weight:
        return Weight(ours + name, ours + name, axes, every, std=std)

    grams = [Weight(name, name, "gram_vocab embed", std=0.0) for name in GRAMS] if c.gram_buckets else []
    return [
        Weight("embed.weight", "embed.weight", "vocab embed", std=0.5),
        *grams,
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


def bucket(gram: Tensor, buckets: int) -> Tensor:
    """In [0, buckets), by multiplicative hashing (Knuth, TAOCP 6.4): near grams fall far apart."""
    return (gram * 2654435761 & 0xFFFFFFFF) * buckets >> 32


class Grams(nn.Module):
    """Embeddings of the last two and the last three tokens, hashed: what a small model need not learn by attention.

    `exchange` is the seam of ranks that have a part of a sequence each.
    """

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.vocab, self.buckets = c.vocab_size, c.gram_buckets
        self.pairs = nn.Embedding(c.gram_buckets, c.hidden_size)
        self.triples = nn.Embedding(c.gram_buckets, c.hidden_size)
        self.exchange: Exchange | None = None

    def forward(self, where: Where) -> Tensor:
        """[batch, seq, embed]; what stands before the document's first token counts as token 0."""
        tokens = where.tokens
        new = tokens.shape[1]
        if where.cache is not None:
            tokens = where.cache.extend(self, tokens[:, None, :, None], tokens[:, None, :, None])[0][:, 0, :, 0]
        if self.exchange is not None:
            tokens = self.exchange.whole(tokens[:, None, :, None])[0][:, 0, :, 0]
        second, third = (pad(tokens, (n, 0))[:, :-n] for n in (1, 2))
        if isinstance(where.mask, Documents):
            ids = where.mask.ids
            second, third = (
                old.masked_fill(pad(ids, (n, 0), value=-1)[:, :-n] != ids, 0) for old, n in ((second, 1), (third, 2))
            )
        pair = tokens * self.vocab + second
        triple = pair * self.vocab + third
        if self.exchange is not None:
            pair, triple = map(self.exchange.own, (pair, triple))
        return self.pairs(bucket(pair[:, -new:], self.buckets)) + self.triples(bucket(triple[:, -new:], self.buckets))


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream; `exchange` as in `Grams`."""

    def __init__(self, c: Config, first: bool) -> None:
        super().__init__()
        self.grams = Grams(c) if first and c.gram_buckets else None
        self.head_size = c.head_size
        self.q, self.k, self.v, self.out = (nn.Linear(c.hidden_size, c.hidden_size, bias=False) for _ in range(4))
        self.up = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)
        self.exchange: Exchange | None = None

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        if self.grams is not None:
            x = x + self.grams(where)
        y = rms_norm(x, x.shape[-1:])
        q, k, v = (part(y).unflatten(-1, (-1, self.head_size)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = (rotate(rms_norm(part, part.shape[-1:]), *where.turns[0]).to(v.dtype) for part in (q, k))
        if where.cache is not None:
            k, v = where.cache.extend(self, k, v)
        x = x + self.out(attention(q, k, v, mask=where.mask, exchange=self.exchange).transpose(1, 2).flatten(2))
        return x + self.down(relu(self.up(rms_norm(x, x.shape[-1:]))).square()), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c, i == 0) for i in range(c.num_hidden_layers)]
    return Decoder(c.vocab_size, c.hidden_size, blocks, Norm(), [Rotary(c.head_size, c.rope_theta)])
