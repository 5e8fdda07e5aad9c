"""GPT-2 (Radford et al. 2019): pre-norm, learned positions, LayerNorm, biases, fused and transposed matrices."""

from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.feed_forward import MLP
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "GPT2LMHeadModel"
MODEL_TYPE = "gpt2"
FIXED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
}
INERT = ("n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
         "summary_use_proj")  # fmt: skip
IGNORED = (r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",)  # causal masks that older files carry


@dataclass(frozen=True)
class Config:
    """The keys of config.json; `n_inner` is 4 · n_embd, if not said."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int = 1024
    n_inner: int | None = None
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is no multiple of n_head {self.n_head}")

    @property
    def num_hidden_layers(self) -> int:
        """The word that others have for n_layer."""
        return self.n_layer

    @property
    def max_position_embeddings(self) -> int:
        """The word that others have for n_positions."""
        return self.n_positions

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        heads = (self.n_head, self.n_embd // self.n_head)
        sizes = {"vocab": self.vocab_size, "position": self.n_positions, "embed": self.n_embd}
        sizes["mlp"] = self.n_inner or 4 * self.n_embd
        return {**{name: (size, 1) for name, size in sizes.items()}, "q": heads, "kv": heads}


def weights(c: Config) -> list[Weight]:
    """The table; the first files had no "transformer." before their names. What enters the stream starts smaller, by
    the square root of the number of layers that do (2.3)."""
    every, quiet = range(c.n_layer), c.initializer_range * (2 * c.n_layer) ** -0.5

    def row(name: str, file: str, axes: str, *, std: float | None = None, transpose: bool = False) -> list[Weight]:
        ours, theirs = f"blocks.{{i}}.{name}", f"h.{{i}}.{file}"
        first, *_ = axes.split()
        return [
            Weight(f"{ours}.weight", f"transformer.{theirs}.weight", axes, every, std=std, transpose=transpose,
                   also=(f"{theirs}.weight",)),
            Weight(f"{ours}.bias", f"transformer.{theirs}.bias", first, every, also=(f"{theirs}.bias",)),
        ]  # fmt: skip

    def plain(name: str, file: str, axes: str, std: float | None = None) -> Weight:
        return Weight(name, f"transformer.{file}", axes, also=(file,), std=std)

    return [
        plain("embed.weight", "wte.weight", "vocab embed"),
        plain("places.weight", "wpe.weight", "position embed"),
        *row("attention_norm", "ln_1", "embed"),
        *row("attention.qkv", "attn.c_attn", "q+kv+kv embed", transpose=True),
        *row("attention.out", "attn.c_proj", "embed q", std=quiet, transpose=True),
        *row("mlp_norm", "ln_2", "embed"),
        *row("mlp.up", "mlp.c_fc", "mlp embed", transpose=True),
        *row("mlp.down", "mlp.c_proj", "embed mlp", std=quiet, transpose=True),
        plain("norm.weight", "ln_f.weight", "embed"),
        plain("norm.bias", "ln_f.bias", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight" if c.tie_word_embeddings else None),
    ]


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        heads, width = c.axes()["q"]
        self.attention_norm = nn.LayerNorm(c.n_embd, c.layer_norm_epsilon)
        self.attention = GroupedAttention(
            c.n_embd, heads, heads, width, bias=True, out_bias=True, fused=True, rotary=None
        )
        self.mlp_norm = nn.LayerNorm(c.n_embd, c.layer_norm_epsilon)
        self.mlp = MLP(c.n_embd, c.axes()["mlp"][0], activation="gelu_new")

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention(self.attention_norm(x), where)
        return x + self.mlp(self.mlp_norm(x)), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    norm = nn.LayerNorm(c.n_embd, c.layer_norm_epsilon)
    return Decoder(c.vocab_size, c.n_embd, [Block(c) for _ in range(c.n_layer)], norm, places=c.n_positions)
