"""gpt-oss (OpenAI 2025, arXiv 2508.10925): alternate windows with learned sinks, biased experts with a clamped gate."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.attention.mask import Window
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.experts import Experts, Router, grouped
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight
from pretrain.precision.linear import Scaling

ARCHITECTURE = "GptOssForCausalLM"
MODEL_TYPE = "gpt_oss"
FIXED = {"hidden_act": "silu", "attention_bias": True}
INERT = ("experts_per_token", "initial_context_length", "output_router_logits", "router_aux_loss_coef")
UNSAID = {"max_position_embeddings": 131072, "sliding_window": 128, "rope_theta": 150_000.0}  # if not said
KINDS = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Config:
    """The keys of config.json; `layer_types` alternate, the first of them with a window, if not said."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_local_experts: int = 32
    num_experts_per_tok: int = 4
    head_dim: int = 64
    sliding_window: int = 128
    layer_types: tuple[str, ...] | None = None
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    rope_theta: float = 150_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            heads, shared = self.num_attention_heads, self.num_key_value_heads
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {shared}")
        if self.head_dim % 2:
            raise ValueError(f"a head of {self.head_dim} cannot be rotated in pairs; expected an even head_dim")
        if not 1 <= self.num_experts_per_tok <= self.num_local_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.num_local_experts} experts")
        if len(self.kinds) != self.num_hidden_layers or set(self.kinds) - set(KINDS):
            raise ValueError(f"layer_types must be {self.num_hidden_layers} of {' or '.join(KINDS)}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of each layer: whether it has a window."""
        return self.layer_types or tuple(KINDS[i % 2] for i in range(self.num_hidden_layers))

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes; `expert_pair` are gates and ups in turn."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "expert_mlp": (self.intermediate_size, 1),
            "expert_pair": (self.intermediate_size, 2),
            "expert": (self.num_local_experts, 1),
            "choice": (self.num_local_experts, 1),
            "chosen": (self.num_experts_per_tok, 1),
            "q": (self.num_attention_heads, self.head_dim),
            "kv": (self.num_key_value_heads, self.head_dim),
            "heads": (self.num_attention_heads, 1),
        }


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    return {"layer_types": list(c.kinds)}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    ours, file = "blocks.{i}.", "model.layers.{i}."
    stacks, experts = ours + "mlp.stacks.", file + "mlp.experts."
    every = range(c.num_hidden_layers)
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        Weight(ours + "attention_norm.weight", file + "input_layernorm.weight", "embed", every),
        Weight(ours + "attention.q.weight", file + "self_attn.q_proj.weight", "q embed", every),
        Weight(ours + "attention.q.bias", file + "self_attn.q_proj.bias", "q", every),
        Weight(ours + "attention.k.weight", file + "self_attn.k_proj.weight", "kv embed", every),
        Weight(ours + "attention.k.bias", file + "self_attn.k_proj.bias", "kv", every),
        Weight(ours + "attention.v.weight", file + "self_attn.v_proj.weight", "kv embed", every),
        Weight(ours + "attention.v.bias", file + "self_attn.v_proj.bias", "kv", every),
        Weight(ours + "attention.out.weight", file + "self_attn.o_proj.weight", "embed q", every),
        Weight(ours + "attention.out.bias", file + "self_attn.o_proj.bias", "embed", every),
        Weight(ours + "attention.sinks", file + "self_attn.sinks", "heads", every, draw="normal"),
        Weight(ours + "mlp_norm.weight", file + "post_attention_layernorm.weight", "embed", every),
        Weight(ours + "mlp.router.weight", file + "mlp.router.weight", "choice embed", every),
        Weight(ours + "mlp.router.bias", file + "mlp.router.bias", "choice", every),
        Weight(stacks + "gate_up", experts + "gate_up_proj", "expert expert_pair embed", every, transpose=True),
        Weight(stacks + "gate_up_bias", experts + "gate_up_proj_bias", "expert expert_pair", every),
        Weight(stacks + "down", experts + "down_proj", "expert embed expert_mlp", every, transpose=True),
        Weight(stacks + "down_bias", experts + "down_proj_bias", "expert embed", every),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight" if c.tie_word_embeddings else None),
    ]


class Clamped(nn.Module):
    """A stack of gated units with biases: down(g · sigmoid(alpha · g) · (u + 1)), g at most `limit`, u within ±limit;
    the rows of `gate_up` are gates and ups in turn. `once` is the seam of ranks that have a part of every expert each
    and add up what they make: of a bias that all of them have, it leaves one."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        experts, width, inner = c.num_local_experts, c.hidden_size, c.intermediate_size
        self.alpha, self.limit = c.swiglu_alpha, c.swiglu_limit
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.gate_up_bias = nn.Parameter(torch.empty(experts, 2 * inner))
        self.down = nn.Parameter(torch.empty(experts, width, inner))
        self.down_bias = nn.Parameter(torch.empty(experts, width))
        self.scaled: dict[str, Scaling] = {}
        self.once: Callable[[Tensor], Tensor] | None = None

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Rows [n, embed] sorted by expert; counts [experts] say how many each has."""
        pairs = grouped(rows, self.gate_up, counts, self.scaled.get("gate_up")) + self.gate_up_bias.repeat_interleave(
            counts, 0, output_size=len(rows)
        )
        gate, up = pairs.unflatten(-1, (-1, 2)).unbind(-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        inner = gate * torch.sigmoid(self.alpha * gate) * (up + 1)
        bias = self.down_bias if self.once is None else self.once(self.down_bias)
        return grouped(inner, self.down, counts, self.scaled.get("down")) + bias.repeat_interleave(
            counts, 0, output_size=len(rows)
        )


class Block(nn.Module):
    """Attention, then the experts, each on a normed copy of the stream."""

    def __init__(self, c: Config, window: Window | None) -> None:
        super().__init__()
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attention = GroupedAttention(
            c.hidden_size, heads, kv_heads, c.head_dim, bias=True, out_bias=True, window=window, sinks=True
        )
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = Experts(
            Router(c.hidden_size, c.num_local_experts, c.num_experts_per_tok, bias=True), Clamped(c)
        )  # fmt: skip

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, Tensor]:
        """The stream [batch, seq, embed] after this block, and its router's statistics."""
        x = x + self.attention(self.attention_norm(x), where)
        y, aux = self.mlp(self.mlp_norm(x), where.counted)
        return x + y, aux


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    windows = [Window(c.sliding_window - 1) if kind == KINDS[0] else None for kind in c.kinds]
    rotary = Rotary(c.head_dim, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    blocks = [Block(c, window) for window in windows]
    return Decoder(c.vocab_size, c.hidden_size, blocks, RMSNorm(c.hidden_size, c.rms_norm_eps), [rotary])
