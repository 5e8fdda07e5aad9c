"""Llama 2 and 3 (Touvron et al. 2023, Dubey et al. 2024): pre-norm, grouped queries, RoPE, SwiGLU."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.model.config import rope
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "LlamaForCausalLM"
MODEL_TYPE = "llama"
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}  # keys of config.json that do not vary
UNSAID = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}  # if not said
INERT = ("is_llama_config",)
IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)  # frequencies that older files carry


@dataclass(frozen=True)
class Config:
    """The keys of config.json; `head_dim` is hidden_size / num_attention_heads, if not said."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None = None
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.num_attention_heads % self.num_key_value_heads:
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {shared}")
        if self.head_size % 2:
            raise ValueError(f"a head of {self.head_size} cannot be rotated in pairs; expected an even head_dim")

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

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
    """A table's words as those of Config; the first Llama's know of no shared keys."""
    words = rope(said.get("rope_parameters") or said.get("rope_scaling") or {}, said.get("rope_theta", 10_000.0))
    heads = {"num_key_value_heads": said["num_attention_heads"]} if "num_attention_heads" in said else {}
    return {**heads, **said, **words}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    ours, file = "blocks.{i}.", "model.layers.{i}."
    every = range(c.num_hidden_layers)
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        Weight(ours + "attention_norm.weight", file + "input_layernorm.weight", "embed", every),
        Weight(ours + "attention.q.weight", file + "self_attn.q_proj.weight", "q embed", every),
        Weight(ours + "attention.k.weight", file + "self_attn.k_proj.weight", "kv embed", every),
        Weight(ours + "attention.v.weight", file + "self_attn.v_proj.weight", "kv embed", every),
        Weight(ours + "attention.out.weight", file + "self_attn.o_proj.weight", "embed q", every),
        Weight(ours + "mlp_norm.weight", file + "post_attention_layernorm.weight", "embed", every),
        Weight(ours + "mlp.gate.weight", file + "mlp.gate_proj.weight", "mlp embed", every),
        Weight(ours + "mlp.up.weight", file + "mlp.up_proj.weight", "mlp embed", every),
        Weight(ours + "mlp.down.weight", file + "mlp.down_proj.weight", "embed mlp", every),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight" if c.tie_word_embeddings else None),
    ]


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy of the stream."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attention = GroupedAttention(c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_size)
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = GLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, None]:
        """The stream [batch, seq, embed] after this block."""
        x = x + self.attention(self.attention_norm(x), where)
        return x + self.mlp(self.mlp_norm(x)), None


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c) for _ in range(c.num_hidden_layers)]
    rotary = Rotary(c.head_size, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    return Decoder(c.vocab_size, c.hidden_size, blocks, RMSNorm(c.hidden_size, c.rms_norm_eps), [rotary])
