"""Gemma 2 (Gemma team 2024, arXiv 2408.00118): norms before and after layers, soft caps, every other one local."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pretrain.attention.mask import Window, sliding
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "Gemma2ForCausalLM"
MODEL_TYPE = "gemma2"
ACTIVATION = "gelu_pytorch_tanh"
FIXED = {
    "hidden_act": ACTIVATION, "hidden_activation": ACTIVATION, "attention_bias": False, "tie_word_embeddings": True,
}  # fmt: skip
INERT = ("cache_implementation", "sliding_window_size")


@dataclass(frozen=True)
class Config:
    """The keys of config.json; scores are divided by √query_pre_attn_scalar, a cap of null is none."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 256
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    query_pre_attn_scalar: int = 256
    sliding_window: int = 4096
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {shared}")
        if self.head_dim % 2:
            raise ValueError(f"a head of {self.head_dim} cannot be rotated in pairs; expected an even head_dim")

    def window(self, layer: int) -> Window | None:
        """What a layer sees: every other one, from the first, looks through a window that counts itself."""
        return None if layer % 2 else sliding(self.sliding_window)

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "mlp": (self.intermediate_size, 1),
            "q": (self.num_attention_heads, self.head_dim),
            "kv": (self.num_key_value_heads, self.head_dim),
        }


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    kinds = ["full_attention" if c.window(i) is None else "sliding_attention" for i in range(c.num_hidden_layers)]
    return {"layer_types": kinds}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes. Norms hold what is added to one."""
    every = range(c.num_hidden_layers)

    def row(name: str, file: str, axes: str) -> Weight:
        draw: Literal["zeros"] | None = "zeros" if axes == "embed" else None
        return Weight(f"blocks.{{i}}.{name}.weight", f"model.layers.{{i}}.{file}.weight", axes, every, draw=draw)

    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        row("attention_norm", "input_layernorm", "embed"),
        row("attention.q", "self_attn.q_proj", "q embed"),
        row("attention.k", "self_attn.k_proj", "kv embed"),
        row("attention.v", "self_attn.v_proj", "kv embed"),
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
            c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim, window=window,
            scale=c.query_pre_attn_scalar**-0.5, softcap=c.attn_logit_softcapping,
        )  # fmt: skip
        self.mlp = GLU(c.hidden_size, c.intermediate_size, activation=ACTIVATION)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention_out_norm(self.attention(self.attention_norm(x), where))
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x))), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    return Decoder(
        c.vocab_size,
        c.hidden_size,
        [Block(c, c.window(i)) for i in range(c.num_hidden_layers)],
        norm(c),
        [Rotary(c.head_dim, c.rope_theta)],
        embed_scale=c.hidden_size**0.5,
        softcap=c.final_logit_softcapping,
    )
