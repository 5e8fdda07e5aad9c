"""DeepSeek-V3 (DeepSeek-AI 2024, arXiv 2412.19437): latent attention, many small experts beside a shared one, chosen by
sigmoid scores and a balancing bias out of a few groups, and modules that look further ahead than the next token."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.model.ahead import Ahead
from pretrain.model.decoder import Decoder, Where
from pretrain.model.layers.experts import Experts, GLUs, Router
from pretrain.model.layers.feed_forward import GLU
from pretrain.model.layers.latent import LatentAttention
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.layers.rope import RopeScaling, Rotary, temperature
from pretrain.model.weights import Axis, Weight
from pretrain.recipe.schema import key

ARCHITECTURE = "DeepseekV3ForCausalLM"
MODEL_TYPE = "deepseek_v3"
FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}
INERT = ("aux_loss_alpha", "ep_size", "output_router_logits", "seq_aux")


@dataclass(frozen=True)
class Config:
    """The keys of config.json. Layers from `first_k_dense_replace` on have experts; without `q_lora_rank`, queries come
    straight from the stream; `num_nextn_predict_layers` modules look further ahead."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    kv_lora_rank: int
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_experts_per_tok: int = 8
    n_group: int = 8
    topk_group: int = 4
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = key("layers before the first that has experts", 3, at_least=0)
    num_nextn_predict_layers: int = 0
    rope_interleave: bool = True
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim {self.qk_rope_head_dim} cannot be rotated in pairs")
        group, rest = divmod(self.n_routed_experts, self.n_group)
        if rest or not 1 <= self.topk_group <= self.n_group or group < 2:  # a group is judged by its two best
            what = f"n_routed_experts {self.n_routed_experts} in n_group {self.n_group}, of which topk_group"
            raise ValueError(f"{what} {self.topk_group}: groups of one size, two experts or more in each")
        looked_at = group * self.topk_group
        if not 1 <= self.num_experts_per_tok <= looked_at:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {looked_at} experts")

    @property
    def score_scale(self) -> float:
        """What scores of attention are multiplied by: YaRN's temperature enters for queries and for keys."""
        scaling, plain = self.rope_scaling, (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5
        if scaling is None or not scaling.mscale_all_dim:
            return plain
        return plain * temperature(scaling.factor, scaling.mscale_all_dim) ** 2

    def axes(self) -> dict[str, Axis]:
        """(count, grain) of the logical axes; "up" is what keys and values of a head are made from at once."""
        heads, plain, turned = self.num_attention_heads, self.qk_nope_head_dim, self.qk_rope_head_dim
        sizes = {
            "vocab": self.vocab_size,
            "embed": self.hidden_size,
            "mlp": self.intermediate_size,
            "shared_mlp": self.moe_intermediate_size * self.n_shared_experts,
            "expert_mlp": self.moe_intermediate_size,
            "expert": self.n_routed_experts,
            "choice": self.n_routed_experts,
            "chosen": self.num_experts_per_tok,
            "q_rank": self.q_lora_rank or 0,
            "kv_rank": self.kv_lora_rank,
            "kv_rank_rope": self.kv_lora_rank + turned,
        }
        wide = {"q": plain + turned, "kv": plain + self.v_head_dim, "o": self.v_head_dim}
        return {name: (size, 1) for name, size in sizes.items()} | {name: (heads, size) for name, size in wide.items()}


def written(c: Config) -> dict[str, object]:
    """Keys of config.json that follow from others."""
    turned = c.qk_rope_head_dim
    return {
        "num_key_value_heads": c.num_attention_heads,
        "qk_head_dim": c.qk_nope_head_dim + turned,
        "head_dim": turned,
    }


def _attention(c: Config, ours: str, file: str, layers: range | None) -> list[Weight]:
    """Rows of the norms and the attention of a block."""

    def row(name: str, theirs: str, axes: str) -> Weight:
        return Weight(f"{ours}{name}.weight", f"{file}{theirs}.weight", axes, layers)

    queries = [
        row("attention.q_down", "self_attn.q_a_proj", "q_rank embed"),
        row("attention.q_norm", "self_attn.q_a_layernorm", "q_rank"),
        row("attention.q_up", "self_attn.q_b_proj", "q q_rank"),
    ]
    return [
        row("attention_norm", "input_layernorm", "embed"),
        *(queries if c.q_lora_rank else [row("attention.q", "self_attn.q_proj", "q embed")]),
        row("attention.kv_down", "self_attn.kv_a_proj_with_mqa", "kv_rank_rope embed"),
        row("attention.kv_norm", "self_attn.kv_a_layernorm", "kv_rank"),
        row("attention.kv_up", "self_attn.kv_b_proj", "kv kv_rank"),
        row("attention.out", "self_attn.o_proj", "embed o"),
        row("mlp_norm", "post_attention_layernorm", "embed"),
    ]


def _glu(ours: str, file: str, inner: str, layers: range | None) -> list[Weight]:
    return [
        Weight(f"{ours}.gate.weight", f"{file}.gate_proj.weight", f"{inner} embed", layers),
        Weight(f"{ours}.up.weight", f"{file}.up_proj.weight", f"{inner} embed", layers),
        Weight(f"{ours}.down.weight", f"{file}.down_proj.weight", f"embed {inner}", layers),
    ]


def _experts(ours: str, file: str, layers: range | None) -> list[Weight]:
    bias, stacks, experts = "mlp.gate.e_score_correction_bias", ours + "mlp.stacks.", file + "mlp.experts.{e}."
    return [
        Weight(ours + "mlp.router.weight", file + "mlp.gate.weight", "choice embed", layers),
        Weight(ours + "mlp.router.balance_bias", file + bias, "choice", layers, buffer=True),
        Weight(stacks + "gate", experts + "gate_proj.weight", "expert expert_mlp embed", layers),
        Weight(stacks + "up", experts + "up_proj.weight", "expert expert_mlp embed", layers),
        Weight(stacks + "down", experts + "down_proj.weight", "expert embed expert_mlp", layers),
        *_glu(ours + "mlp.shared", file + "mlp.shared_experts", "shared_mlp", layers),
    ]


def _further(c: Config, k: int) -> list[Weight]:
    """Rows of module k, which the file holds as one more layer. Its copies of embedding and head are not written."""
    ours, file = f"ahead.{k}.", f"model.layers.{c.num_hidden_layers + k}."
    return [
        Weight(ours + "norm_token.weight", file + "enorm.weight", "embed"),
        Weight(ours + "norm_hidden.weight", file + "hnorm.weight", "embed"),
        Weight(ours + "projection.weight", file + "eh_proj.weight", "embed embed+embed"),
        *_attention(c, ours + "block.", file, None),
        *_experts(ours + "block.", file, None),
        Weight(ours + "norm.weight", file + "shared_head.norm.weight", "embed"),
    ]


def fitted(table: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A table as the tensors are: transformers writes the number of modules that look ahead, and not the modules."""
    first = f"model.layers.{table.get('num_hidden_layers')}."
    there = any(name.startswith(first) for name in names)
    return table if there else table | {"num_nextn_predict_layers": 0}


def weights(c: Config) -> list[Weight]:
    """The table: our name, the file's name, axes."""
    ours, file, every = "blocks.{i}.", "model.layers.{i}.", range(c.num_hidden_layers)
    dense, sparse = every[: c.first_k_dense_replace], every[c.first_k_dense_replace :]
    further = [f"model.layers.{c.num_hidden_layers + k}." for k in range(c.num_nextn_predict_layers)]
    embeds, heads = (tuple(at + name for at in further) for name in ("embed_tokens.weight", "shared_head.head.weight"))
    tied = "embed.weight" if c.tie_word_embeddings else None
    return [
        Weight("embed.weight", "model.embed_tokens.weight", "vocab embed", also=embeds),
        *_attention(c, ours, file, every),
        *_glu(ours + "mlp", file + "mlp", "mlp", dense),
        *_experts(ours, file, sparse),
        Weight("norm.weight", "model.norm.weight", "embed"),
        Weight("head.weight", "lm_head.weight", "vocab embed", tied=tied, also=heads),
        *(row for k in range(c.num_nextn_predict_layers) for row in _further(c, k)),
    ]


class Block(nn.Module):
    """Attention, then experts or a feed-forward layer, each on a normed copy of the stream."""

    def __init__(self, c: Config, sparse: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attention = LatentAttention(
            c.hidden_size,
            c.num_attention_heads,
            q_rank=c.q_lora_rank,
            kv_rank=c.kv_lora_rank,
            plain=c.qk_nope_head_dim,
            turned=c.qk_rope_head_dim,
            value=c.v_head_dim,
            interleaved=c.rope_interleave,
            scale=c.score_scale,
        )
        self.mlp_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp: nn.Module = _mixture(c) if sparse else GLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, where: Where) -> tuple[Tensor, Tensor | None]:
        """The stream [batch, seq, embed] after this block, and its router's statistics, if it has one."""
        x = x + self.attention(self.attention_norm(x), where)
        y = self.mlp_norm(x)
        y, aux = self.mlp(y, where.counted) if isinstance(self.mlp, Experts) else (self.mlp(y), None)
        return x + y, aux


def _mixture(c: Config) -> Experts:
    router = Router(
        c.hidden_size,
        c.n_routed_experts,
        c.num_experts_per_tok,
        score="sigmoid",
        renormalise=c.norm_topk_prob,
        scale=c.routed_scaling_factor,
        balanced=True,
        groups=c.n_group,
        kept=c.topk_group,
    )
    shared = GLU(c.hidden_size, c.moe_intermediate_size * c.n_shared_experts)
    return Experts(router, GLUs(c.hidden_size, c.moe_intermediate_size, c.n_routed_experts), shared)


def build(c: Config) -> Decoder:
    """The module, its weights not yet drawn."""
    blocks = [Block(c, i >= c.first_k_dense_replace) for i in range(c.num_hidden_layers)]
    rotary = Rotary(c.qk_rope_head_dim, c.rope_theta, c.rope_scaling, c.max_position_embeddings)
    norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
    model = Decoder(c.vocab_size, c.hidden_size, blocks, norm, [rotary])
    for _ in range(c.num_nextn_predict_layers):
        model.ahead.append(Ahead(c.hidden_size, Block(c, True), norm))
    return model
