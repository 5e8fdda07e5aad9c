"""Gemma 3's decoder of text (Gemma team 2025, arXiv 2503.19786): five local layers to a global one, each kind with its
own rotary table, and every head's queries and keys normed."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from pretrain.attention.mask import Window, sliding
from pretrain.model.config import rope, scaling_words
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "Gemma3ForCausalLM"
MODEL_TYPE = "gemma3_text"
ACTIVATION = "gelu_pytorch_tanh"
LOCAL, GLOBAL = 0, 1  # rotary tables
FIXED = {"hidden_activation": ACTIVATION, "attention_bias": False, "tie_word_embeddings": True}
INERT = ("cache_implementation",)


@dataclass(frozen=True)
class Config:
    """The keys of config.json; scores are divided by √query_pre_attn_scalar.

    `rope_theta` and `rope_scaling` are those of global layers: the last one of every `sliding_window_pattern`.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 256
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    query_pre_attn_scalar: int = 256
    sliding_window: int = 4096
    sliding_window_pattern: int = 6
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {shared}")
        if self.head_dim % 2:
            raise ValueError(f"a head of {self.head_dim} cannot be rotated in pairs; expected an even head_dim")

    def window(self, layer: int) -> Window | None:
        """What a layer sees: local ones look through a window that counts themselves."""
        return sliding(self.sliding_window) if (layer + 1) % self.sliding_window_pattern else None

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "mlp": (self.intermediate_size, 1),
            "q": (self.num_attention_heads, self.head_dim),
            "kv": (self.num_key_value_heads, self.head_dim),
            "head": (1, self.head_dim),
        }


def read(said: dict[str, Any]) -> dict[str, Any]:
    """A table's words for the pattern and for the two rotary tables, of either age, as those of Config."""
    pattern = said.get("_sliding_window_pattern", 6)
    if kinds := said.get("layer_types"):
        pattern = kinds.index("full_attention") + 1 if "full_attention" in kinds else max(pattern, len(kinds) + 1)
    tables = said.get("rope_parameters", {})
    far = rope(tables.get("full_attention") or said.get("rope_scaling") or {}, said.get("rope_theta", 1_000_000.0))
    near = rope(tables.get("sliding_attention") or {}, said.get("rope_local_base_freq", 10_000.0))
    if near["rope_scaling"] is not None:
        raise ValueError("rope_parameters: sliding_attention is not scaled")
    local = {"rope_local_base_freq": near["rope_theta"]}
    return {"sliding_window_pattern": pattern, **said, **far, **local}


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    kinds = ["full_attention" if c.window(i) is None else "sliding_attention" for i in range(c.num_hidden_layers)]
    far = {"rope_type": "default", **(scaling_words(c.rope_scaling) or {}), "rope_theta": c.rope_theta}
    near = {"rope_type": "default", "rope_theta": c.rope_local_base_freq}
    tables = {"full_attention": far, "sliding_attention": near}
    pattern = c.sliding_window_pattern
    return {"layer_types": kinds, "_sliding_window_pattern": pattern, "rope_parameters": tables}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes. Norms hold what is added to one."""
    every = range(c.num_hidden_layers)

    def row(name: str, file: str, axes: str, shared_by: str | None = None) -> Weight:
        draw: Literal["zeros"] | None = "zeros" if axes in ("embed", "head") else None
        ours, theirs = f"blocks.{{i}}.{name}.weight", f"model.layers.{{i}}.{file}.weight"
        return Weight(ours, theirs, axes, every, draw=draw, shared_by=shared_by)

    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        row("attention_norm", "input_layernorm", "embed"),
        row("attention.q", "self_attn.q_proj", "q embed"),
        row("attention.k", "self_attn.k_proj", "kv embed"),
        row("attention.v", "self_attn.v_proj", "kv embed"),
        row("attention.q_norm", "self_attn.q_norm", "head", shared_by="q"),
        row("attention.k_norm", "self_attn.k_norm", "head", shared_by="kv"),
        row("attention.out", "self_attn.o_proj", "embed q"),
        row("attention_out_norm", "post_attention_layernorm", "embed"),
        row("mlp_norm", "pre_feedforward_layernorm", "embed"),
        row("mlp.gate", "mlp.gate_proj", "mlp embed"),
        row("mlp.up", "mlp.up_proj", "mlp embed"),
        row("mlp.down", "mlp.down_proj", "embed mlp"),
        row("mlp_out_norm", "post_feedforward_layernorm", "embed"),
        Weight("norm.weight", "model.norm.weight", "embed", draw="zeros"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight"),
    ]


def norm(c: Config) -> RMSNorm:
    """The norm of this family: x / rms(x) · (1 + weight)."""
    return RMSNorm(c.hidden_size, c.rms_norm_eps, unit_offset=True)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream and normed before it is added."""

    def __init__(self, c: Config, window: Window | None) -> None:
        super().__init__()
        self.attention_norm, self.attention_out_norm, self.mlp_norm, self.mlp_out_norm = (norm(c) for _ in range(4))
        self.attention = GroupedAttention(
            c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim, norm="head", eps=c.rms_norm_eps,
            unit_offset=True, rotary=GLOBAL if window is None else LOCAL, window=window,
            scale=c.query_pre_attn_scalar**-0.5,
        )  # fmt: skip
        self.mlp = GLU(c.hidden_size, c.intermediate_size, activation=ACTIVATION)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention_out_norm(self.attention(self.attention_norm(x), where))
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x))), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c, c.window(i)) for i in range(c.num_hidden_layers)]
    near = Rotary(c.head_dim, c.rope_local_base_freq)
    far = Rotary(c.head_dim, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    return Decoder(c.vocab_size, c.hidden_size, blocks, norm(c), [near, far], embed_scale=c.hidden_size**0.5)
