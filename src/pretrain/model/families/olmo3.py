"""OLMo 3 (OLMo team 2025, arXiv 2512.13961): OLMo 2's block, three local layers to a global one, whose turns alone are
scaled."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.attention.mask import Window, sliding
from pretrain.model.config import rope, scaling_words
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "Olmo3ForCausalLM"
MODEL_TYPE = "olmo3"
FIXED = {"hidden_act": "silu", "attention_bias": False}
UNSAID = {"max_position_embeddings": 2048}  # if not said
LOCAL, GLOBAL = 0, 1  # rotary tables
CUT = 3.0  # standard deviations that no draw exceeds (OLMo-core, its "normal")


@dataclass(frozen=True)
class Config:
    """The keys of config.json; every fourth layer is global, `rope_scaling` is of global layers alone."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    sliding_window: int = 4096
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.num_attention_heads % self.num_key_value_heads:
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {shared}")
        if self.head_size % 2:
            raise ValueError(f"a head of {self.head_size} cannot be rotated in pairs; expected an even one")

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_attention_heads

    def window(self, layer: int) -> Window | None:
        """What a layer sees: local ones look through a window that counts themselves."""
        return sliding(self.sliding_window) if (layer + 1) % 4 else None

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "mlp": (self.intermediate_size, 1),
            "q": (self.num_attention_heads, self.head_size),
            "kv": (self.num_key_value_heads, self.head_size),
        }


def read(said: dict[str, Any]) -> dict[str, Any]:
    """A table's words for the two rotary tables, of either age, as those of Config."""
    tables, theta = said.get("rope_parameters", {}), said.get("rope_theta", 500_000.0)
    far = rope(tables.get("full_attention") or said.get("rope_scaling") or {}, theta)
    near = rope(tables.get("sliding_attention") or {}, far["rope_theta"])
    if near != {"rope_theta": far["rope_theta"], "rope_scaling": None}:
        raise ValueError("rope_parameters: sliding_attention has a table of its own")
    return {**said, **far}


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    kinds = ["full_attention" if c.window(i) is None else "sliding_attention" for i in range(c.num_hidden_layers)]
    near = {"rope_type": "default", "rope_theta": c.rope_theta}
    tables = {"full_attention": {**near, **(scaling_words(c.rope_scaling) or {})}, "sliding_attention": near}
    return {"layer_types": kinds, "rope_parameters": tables}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    every = range(c.num_hidden_layers)

    def row(name: str, file: str, axes: str) -> Weight:
        ours, theirs = f"blocks.{{i}}.{name}.weight", f"model.layers.{{i}}.{file}.weight"
        return Weight(ours, theirs, axes, every, cut=CUT)

    tied = "embed.weight" if c.tie_word_embeddings else None
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed", cut=CUT),
        row("attention.q", "self_attn.q_proj", "q embed"),
        row("attention.k", "self_attn.k_proj", "kv embed"),
        row("attention.v", "self_attn.v_proj", "kv embed"),
        row("attention.q_norm", "self_attn.q_norm", "q"),
        row("attention.k_norm", "self_attn.k_norm", "kv"),
        row("attention.out", "self_attn.o_proj", "embed q"),
        row("attention_norm", "post_attention_layernorm", "embed"),
        row("mlp.gate", "mlp.gate_proj", "mlp embed"),
        row("mlp.up", "mlp.up_proj", "mlp embed"),
        row("mlp.down", "mlp.down_proj", "embed mlp"),
        row("mlp_norm", "post_feedforward_layernorm", "embed"),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied=tied, cut=CUT),
    ]


class Block(nn.Module):
    """Attention, then the feed-forward layer, each normed before it is added to the stream."""

    def __init__(self, c: Config, window: Window | None) -> None:
        super().__init__()
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.attention = GroupedAttention(
            c.hidden_size, heads, kv_heads, c.head_size, norm="all", eps=c.rms_norm_eps,
            rotary=GLOBAL if window is None else LOCAL, window=window,
        )  # fmt: skip
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = GLU(c.hidden_size, c.intermediate_size)
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention_norm(self.attention(x, where))
        return x + self.mlp_norm(self.mlp(x)), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c, c.window(i)) for i in range(c.num_hidden_layers)]
    near = Rotary(c.head_size, c.rope_theta)
    far = Rotary(c.head_size, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    return Decoder(c.vocab_size, c.hidden_size, blocks, RMSNorm(c.hidden_size, c.rms_norm_eps), [near, far])
