"""Oracle: Mixtral, Qwen3-MoE and gpt-oss against transformers', and their published sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count
from pretrain.base.errors import UserError
from pretrain.model.config import read_config
from pretrain.model.count import active_parameters

MUTANTS = [
    ("src/pretrain/model/families/mixtral.py", 'experts + "w3.weight"', 'experts + "w1.weight"'),
    ("src/pretrain/model/families/mixtral.py", "Window(c.sliding_window - 1)", "Window(c.sliding_window)"),
    ("src/pretrain/model/families/qwen3_moe.py", "renormalise=c.norm_topk_prob", "renormalise=True"),
    ("src/pretrain/model/families/qwen3_moe.py", "(layer + 1) %", "layer %"),
    ("src/pretrain/model/families/gpt_oss.py", "up.clamp(-self.limit, self.limit)", "up.clamp(max=self.limit)"),
    ("src/pretrain/model/families/gpt_oss.py", "gate.clamp(max=self.limit)", "gate.clamp(-self.limit, self.limit)"),
    ("src/pretrain/model/families/gpt_oss.py", "self.alpha * gate", "gate"),
    ("src/pretrain/model/families/gpt_oss.py", "unflatten(-1, (-1, 2)).unbind(-1)", "chunk(2, -1)"),
    ("src/pretrain/model/families/gpt_oss.py", "(up + 1)", "up"),
    ("src/pretrain/model/families/gpt_oss.py", "sinks=True", "sinks=False"),
    ("src/pretrain/model/families/gpt_oss.py", "kind == KINDS[0]", "kind == KINDS[1]"),
    ("src/pretrain/model/layers/experts.py", "weights / (weights.sum(-1, keepdim=True) + 1e-20)", "weights"),
    ("src/pretrain/model/layers/experts.py", "scores.detach()", "-scores.detach()"),
    ("src/pretrain/model/count.py", '* axes["chosen"][0]', ""),
]
SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = {**SMALL, "architectures": ["MixtralForCausalLM"], "num_local_experts": 5, "num_experts_per_tok": 2}
QWEN = {
    **SMALL, "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 12, "moe_intermediate_size": 20, "num_experts": 6,
    "num_experts_per_tok": 3, "norm_topk_prob": True,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 16,
}  # fmt: skip
OSS = {
    **SMALL, "architectures": ["GptOssForCausalLM"], "head_dim": 10, "num_local_experts": 5, "num_experts_per_tok": 2,
    "sliding_window": 7, "rope_parameters": YARN, "swiglu_limit": 0.9,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "Mixtral": MIXTRAL,
    "Mixtral, a window, tied": {**MIXTRAL, "sliding_window": 7, "tie_word_embeddings": True},
    "Mixtral, all experts": {**MIXTRAL, "num_experts_per_tok": 5, "num_key_value_heads": 4, "rms_norm_eps": 1e-4},
    "Qwen3": QWEN,
    "Qwen3, weights as they are": {**QWEN, "norm_topk_prob": False},
    "Qwen3, every other layer": {**QWEN, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "gpt-oss": OSS,
    "gpt-oss, not stretched": {
        **OSS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "swiglu_limit": 7.0,
        "num_key_value_heads": 4, "layer_types": ["full_attention", "sliding_attention"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways(VARIATIONS[name], tmp_path)


def mixtral(layers: int, width: int, inner: int, heads: int, **more: object) -> dict[str, object]:
    return {
        "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02, "intermediate_size": inner,
        "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": heads,
        "num_experts_per_tok": 2, "num_hidden_layers": layers, "num_key_value_heads": 8, "num_local_experts": 8,
        "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
        "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "transformers_version": "4.36.0.dev0", "vocab_size": 32000, **more,
    }  # fmt: skip


def qwen(layers: int, width: int, inner: int, expert: int, heads: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02, "intermediate_size": inner,
        "max_position_embeddings": 40960, "max_window_layers": layers, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": expert, "norm_topk_prob": True,
        "num_attention_heads": heads, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": layers,
        "num_key_value_heads": 4, "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
        "vocab_size": 151936,
    }  # fmt: skip


def oss(layers: int, experts: int) -> dict[str, object]:
    scaling = {
        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "rope_type": "yarn", "truncate": False,
    }  # fmt: skip
    return {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
        "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
        "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2), "max_position_embeddings": 131072,
        "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": layers,
        "num_key_value_heads": 8, "num_local_experts": experts, "output_router_logits": False, "pad_token_id": 199999,
        "rms_norm_eps": 1e-05, "rope_scaling": scaling, "rope_theta": 150000, "router_aux_loss_coef": 0.9,
        "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": False,
        "transformers_version": "4.55.0.dev0", "use_cache": True, "vocab_size": 201088,
    }  # fmt: skip


# name: config.json, parameters, and what its authors say a token meets, in billions, gpt-oss without the embedding
PUBLISHED: dict[str, tuple[dict[str, object], int, float]] = {
    "Mixtral-8x7B": (mixtral(32, 4096, 14336, 32), 46_702_792_704, 12.9),
    "Mixtral-8x22B": (
        mixtral(56, 6144, 16384, 48, max_position_embeddings=65536, vocab_size=32768), 140_630_071_296, 39,
    ),
    "Qwen3-30B-A3B": (qwen(48, 2048, 6144, 768, 32), 30_532_122_624, 3.3),
    "Qwen3-235B-A22B": (qwen(94, 4096, 12288, 1536, 64), 235_093_634_560, 22),
    "gpt-oss-20b": (oss(24, 32), 20_914_757_184, 3.61),
    "gpt-oss-120b": (oss(36, 128), 116_829_156_672, 5.13),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters, billions = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
    family, config = read_config(tmp_path)
    active = active_parameters(family.weights(config), config.axes())
    axes = config.axes()
    width, inner, experts, chosen = (axes[name][0] for name in ("embed", "expert_mlp", "expert", "chosen"))
    oss = name.startswith("gpt")
    expert = 3 * width * inner + (2 * inner + width if oss else 0)
    assert active == parameters - config.num_hidden_layers * (experts - chosen) * expert
    assert (active - oss * axes["vocab"][0] * width) / 1e9 == pytest.approx(billions, rel=0.02)


def test_weights_in_few_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**oss(24, 32), "quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(UserError, match=r"weights in mxfp4.*bfloat16"):
        read_config(tmp_path)


def test_the_other_word_for_experts_is_read(tmp_path: Path) -> None:
    """transformers 5 writes num_local_experts alone."""
    table = {**qwen(48, 2048, 6144, 768, 32), "num_local_experts": 128}
    assert count(table, tmp_path) == count({k: v for k, v in table.items() if k != "num_experts"}, tmp_path)
