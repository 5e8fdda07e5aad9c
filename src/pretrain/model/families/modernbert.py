"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): an encoder with norms before, rotary positions, GeGLU, no biases,
and two local layers to a global one, each kind with its own rotary table.

Unpadded, as its authors train it, is our documents mask: several texts in a row, each seeing itself.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.attention.mask import Window
from pretrain.model.config import rope
from pretrain.model.decoder import Where
from pretrain.model.encoder import Encoder, Transform
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.rope import Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "ModernBertForMaskedLM"
MODEL_TYPE = "modernbert"
CAUSAL = False
GLOBAL, LOCAL = 0, 1  # rotary tables
FIXED = {
    "attention_bias": False,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "decoder_bias": True,
    "hidden_activation": "gelu",
    "mlp_bias": False,
    "norm_bias": False,
    "position_embedding_type": "absolute",  # written by its authors, read by none
    "tie_word_embeddings": True,
}
INERT = ("classifier_pooling", "cls_token_id", "deterministic_flash_attn", "embedding_dropout", "layer_norm_eps",
         "mlp_dropout", "reference_compile", "repad_logits_with_grad", "sparse_pred_ignore_index",
         "sparse_prediction")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The keys of config.json; a local layer sees local_attention / 2 tokens to each side."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 8192
    norm_eps: float = 1e-5
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.axes()["q"][1] % 2:
            raise ValueError(f"hidden_size {self.hidden_size} gives {self.num_attention_heads} heads no even width")

    def window(self, layer: int) -> Window | None:
        """What a layer sees."""
        half = self.local_attention // 2
        return Window(half, half) if layer % self.global_attn_every_n_layers else None

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        heads = (self.num_attention_heads, self.hidden_size // self.num_attention_heads)
        sizes = {"vocab": self.vocab_size, "embed": self.hidden_size, "mlp": self.intermediate_size}
        return {**{name: (size, 1) for name, size in sizes.items()}, "q": heads, "kv": heads}


def read(said: dict[str, Any]) -> dict[str, Any]:
    """A table's words for the pattern and for the two rotary tables, of either age, as those of Config."""
    said = dict(said)
    if kinds := said.get("layer_types"):
        later = [i for i, kind in enumerate(kinds) if kind == "full_attention" and i]
        every = said.get("global_attn_every_n_layers", max(said.get("num_hidden_layers", 1), 3))
        said["global_attn_every_n_layers"] = later[0] if later else every  # of one global layer no rule can be read
    tables = said.get("rope_parameters", {})
    for key, kind, theta in (
        ("global_rope_theta", "full_attention", 160_000.0),
        ("local_rope_theta", "sliding_attention", 10_000.0),
    ):
        found = rope(tables.get(kind) or {}, said.get(key, theta))
        if found["rope_scaling"] is not None:
            raise ValueError(f"rope_parameters: {kind} is not scaled")
        said[key] = found["rope_theta"]
    return said


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others, and tokens that it would otherwise number as the published one's."""
    kinds = ["full_attention" if c.window(i) is None else "sliding_attention" for i in range(c.num_hidden_layers)]
    thetas = {"full_attention": c.global_rope_theta, "sliding_attention": c.local_rope_theta}
    tables = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()}
    none = dict.fromkeys(("cls_token_id", "sep_token_id", "pad_token_id"))
    return {"layer_types": kinds, "rope_parameters": tables, **none}


def weights(c: Config) -> list[Weight]:
    """The table. All matrices start cut off; what enters the stream starts smaller, by the square root of the number
    of layers that do."""
    every, quiet = range(c.num_hidden_layers), c.initializer_range * (2 * c.num_hidden_layers) ** -0.5

    def row(
        name: str, file: str, axes: str, layers: range | None = every, std: float | None = None, tied: str | None = None
    ) -> Weight:
        prefix, inside = ("blocks.{i}.", "model.layers.{i}.") if layers is not None else ("", "")
        cut = c.initializer_cutoff_factor
        return Weight(f"{prefix}{name}.weight", f"{inside}{file}.weight", axes, layers, tied=tied, std=std, cut=cut)

    return [
        row("embed", "model.embeddings.tok_embeddings", "vocab embed", None),
        row("embed_norm", "model.embeddings.norm", "embed", None),
        row("attention_norm", "attn_norm", "embed", every[1:]),
        row("attention.qkv", "attn.Wqkv", "q+kv+kv embed"),
        row("attention.out", "attn.Wo", "embed q", std=quiet),
        row("mlp_norm", "mlp_norm", "embed"),
        row("mlp.gate_up", "mlp.Wi", "mlp+mlp embed"),
        row("mlp.down", "mlp.Wo", "embed mlp", std=quiet),
        row("norm", "model.final_norm", "embed", None),
        row("transform.dense", "head.dense", "embed embed", None, quiet),
        row("transform.norm", "head.norm", "embed", None),
        row("head", "decoder", "vocab embed", None, tied="embed.weight"),
        Weight("head.bias", "decoder.bias", "vocab"),
    ]


def norm(c: Config) -> nn.LayerNorm:
    """The norm of this family: without biases."""
    return nn.LayerNorm(c.hidden_size, c.norm_eps, bias=False)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream; the first block finds it normed."""

    def __init__(self, c: Config, layer: int) -> None:
        super().__init__()
        heads, width = c.axes()["q"]
        window = c.window(layer)
        self.attention_norm = norm(c) if layer else nn.Identity()
        self.attention = GroupedAttention(
            c.hidden_size, heads, heads, width, fused=True, rotary=LOCAL if window else GLOBAL, window=window
        )
        self.mlp_norm = norm(c)
        self.mlp = GLU(c.hidden_size, c.intermediate_size, activation="gelu", fused=True)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention(self.attention_norm(x), where)
        return x + self.mlp(self.mlp_norm(x)), None


def build(c: Config) -> Encoder:
    """The module, its weights not yet drawn."""
    width = c.axes()["q"][1]
    return Encoder(
        c.vocab_size, c.hidden_size, [Block(c, i) for i in range(c.num_hidden_layers)], norm(c),
        [Rotary(width, c.global_rope_theta), Rotary(width, c.local_rope_theta)],
        embed_norm=norm(c), transform=Transform(c.hidden_size, c.norm_eps, bias=False),
    )  # fmt: skip
