"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): Mistral's block, its feed-forward layer two of eight experts."""

from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.attention.mask import Window
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.experts import Experts, GLUs, Router
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "MixtralForCausalLM"
MODEL_TYPE = "mixtral"
FIXED = {"hidden_act": "silu"}
INERT = ("output_router_logits", "router_aux_loss_coef")
UNSAID = {"max_position_embeddings": 131072, "rope_theta": 1_000_000.0}  # if not said


@dataclass(frozen=True)
class Config:
    """The keys of config.json; `head_dim` is hidden_size / num_attention_heads, if not said."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
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
        if not 1 <= self.num_experts_per_tok <= self.num_local_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.num_local_experts} experts")

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "expert_mlp": (self.intermediate_size, 1),
            "expert": (self.num_local_experts, 1),
            "choice": (self.num_local_experts, 1),
            "chosen": (self.num_experts_per_tok, 1),
            "q": (self.num_attention_heads, self.head_size),
            "kv": (self.num_key_value_heads, self.head_size),
        }


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    ours, file = "blocks.{i}.", "model.layers.{i}."
    stacks, experts = ours + "mlp.stacks.", file + "block_sparse_moe.experts.{e}."
    every = range(c.num_hidden_layers)
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        Weight(ours + "attention_norm.weight", file + "input_layernorm.weight", "embed", every),
        Weight(ours + "attention.q.weight", file + "self_attn.q_proj.weight", "q embed", every),
        Weight(ours + "attention.k.weight", file + "self_attn.k_proj.weight", "kv embed", every),
        Weight(ours + "attention.v.weight", file + "self_attn.v_proj.weight", "kv embed", every),
        Weight(ours + "attention.out.weight", file + "self_attn.o_proj.weight", "embed q", every),
        Weight(ours + "mlp_norm.weight", file + "post_attention_layernorm.weight", "embed", every),
        Weight(ours + "mlp.router.weight", file + "block_sparse_moe.gate.weight", "choice embed", every),
        Weight(stacks + "gate", experts + "w1.weight", "expert expert_mlp embed", every),
        Weight(stacks + "up", experts + "w3.weight", "expert expert_mlp embed", every),
        Weight(stacks + "down", experts + "w2.weight", "expert embed expert_mlp", every),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight" if c.tie_word_embeddings else None),
    ]


class Block(nn.Module):
    """Attention, then the experts, each on a normed copy of the stream."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        window = None if c.sliding_window is None else Window(c.sliding_window - 1)
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attention = GroupedAttention(c.hidden_size, heads, kv_heads, c.head_size, window=window)
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = Experts(
            Router(c.hidden_size, c.num_local_experts, c.num_experts_per_tok),
            GLUs(c.hidden_size, c.intermediate_size, c.num_local_experts),
        )

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, Tensor]:
        """The stream [batch, seq, embed] after this block, and its router's statistics."""
        x = x + self.attention(self.attention_norm(x), where)
        y, aux = self.mlp(self.mlp_norm(x), where.counted)
        return x + y, aux


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c) for _ in range(c.num_hidden_layers)]
    rotary = Rotary(c.head_size, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    return Decoder(c.vocab_size, c.hidden_size, blocks, RMSNorm(c.hidden_size, c.rms_norm_eps), [rotary])
