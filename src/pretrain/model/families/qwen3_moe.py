"""Qwen 3 with experts (Yang et al. 2025, arXiv 2505.09388): heads are normed, some layers are many small experts."""

from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.experts import Experts, GLUs, Router
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.grouped import GroupedAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary
from pretrain.model.weights import Axis, Weight

ARCHITECTURE = "Qwen3MoeForCausalLM"
MODEL_TYPE = "qwen3_moe"
FIXED = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
INERT = ("max_window_layers", "output_router_logits", "router_aux_loss_coef", "sliding_window")
UNSAID = {"norm_topk_prob": False}  # if not said
OTHERWISE = {"num_local_experts": "num_experts"}  # transformers 5 has another word


@dataclass(frozen=True)
class Config:
    """The keys of config.json; `head_dim` is hidden_size / num_attention_heads, if not said.

    Every `decoder_sparse_step`-th layer has experts, but those in `mlp_only_layers` have not.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_experts: int = 128
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
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
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.num_experts} experts")

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes."""
        return {
            "vocab": (self.vocab_size, 1),
            "embed": (self.hidden_size, 1),
            "mlp": (self.intermediate_size, 1),
            "expert_mlp": (self.moe_intermediate_size, 1),
            "expert": (self.num_experts, 1),
            "choice": (self.num_experts, 1),
            "chosen": (self.num_experts_per_tok, 1),
            "q": (self.num_attention_heads, self.head_size),
            "kv": (self.num_key_value_heads, self.head_size),
            "head": (1, self.head_size),
        }


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    return {"num_local_experts": c.num_experts}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    ours, file = "blocks.{i}.", "model.layers.{i}."
    stacks, experts = ours + "mlp.stacks.", file + "mlp.experts.{e}."
    every = range(c.num_hidden_layers)
    sparse, whole = ([i for i in every if c.sparse(i) is kind] for kind in (True, False))
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed"),
        Weight(ours + "attention_norm.weight", file + "input_layernorm.weight", "embed", every),
        Weight(ours + "attention.q.weight", file + "self_attn.q_proj.weight", "q embed", every),
        Weight(ours + "attention.k.weight", file + "self_attn.k_proj.weight", "kv embed", every),
        Weight(ours + "attention.v.weight", file + "self_attn.v_proj.weight", "kv embed", every),
        Weight(ours + "attention.q_norm.weight", file + "self_attn.q_norm.weight", "head", every, shared_by="q"),
        Weight(ours + "attention.k_norm.weight", file + "self_attn.k_norm.weight", "head", every, shared_by="kv"),
        Weight(ours + "attention.out.weight", file + "self_attn.o_proj.weight", "embed q", every),
        Weight(ours + "mlp_norm.weight", file + "post_attention_layernorm.weight", "embed", every),
        Weight(ours + "mlp.router.weight", file + "mlp.gate.weight", "choice embed", sparse),
        Weight(stacks + "gate", experts + "gate_proj.weight", "expert expert_mlp embed", sparse),
        Weight(stacks + "up", experts + "up_proj.weight", "expert expert_mlp embed", sparse),
        Weight(stacks + "down", experts + "down_proj.weight", "expert embed expert_mlp", sparse),
        Weight(ours + "mlp.gate.weight", file + "mlp.gate_proj.weight", "mlp embed", whole),
        Weight(ours + "mlp.up.weight", file + "mlp.up_proj.weight", "mlp embed", whole),
        Weight(ours + "mlp.down.weight", file + "mlp.down_proj.weight", "embed mlp", whole),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied="embed.weight" if c.tie_word_embeddings else None),
    ]


class Block(nn.Module):
    """Attention, then the experts or a feed-forward layer, each on a normed copy of the stream."""

    def __init__(self, c: Config, sparse: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.attention = GroupedAttention(
            c.hidden_size, heads, kv_heads, c.head_size, norm="head", eps=c.rms_norm_eps
        )  # fmt: skip
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp: nn.Module
        if sparse:
            router = Router(c.hidden_size, c.num_experts, c.num_experts_per_tok, renormalise=c.norm_topk_prob)
            self.mlp = Experts(router, GLUs(c.hidden_size, c.moe_intermediate_size, c.num_experts))
        else:
            self.mlp = GLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, Tensor | None]:
        """The stream [batch, seq, embed] after this block, and its router's statistics, if it has one."""
        x = x + self.attention(self.attention_norm(x), where)
        y = self.mlp_norm(x)
        y, aux = self.mlp(y, where.counted) if isinstance(self.mlp, Experts) else (self.mlp(y), None)
        return x + y, aux


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c, c.sparse(i)) for i in range(c.num_hidden_layers)]
    rotary = Rotary(c.head_size, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    return Decoder(c.vocab_size, c.hidden_size, blocks, RMSNorm(c.hidden_size, c.rms_norm_eps), [rotary])
