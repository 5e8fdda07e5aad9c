"""Oracle: Llama 2 and 3, SmolLM and Yi against transformers' LlamaForCausalLM."""

from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count

MUTANTS = [
    ("src/pretrain/model/layers/rope.py", "torch.cat([-other, one], -1)", "torch.cat([other, -one], -1)"),
    ("src/pretrain/model/layers/rope.py", "return kept.clamp(0, 1)", "return kept.clamp(0, 2)"),
    ("src/pretrain/model/layers/rope.py", "return frequencies / self.factor", "return frequencies"),
    ("src/pretrain/model/layers/rope.py", "cos * self.magnitude", "cos"),
    ("src/pretrain/model/layers/rope.py", "1 - ramp.clamp(0, 1)", "ramp.clamp(0, 1)"),
    ("src/pretrain/model/layers/rope.py", "factor * ratio - (factor - 1)", "factor * ratio"),
    ("src/pretrain/model/layers/feed_forward.py", "self.activation(self.gate(x)) * self.up(x)",
     "self.activation(self.up(x)) * self.gate(x)"),
    ("src/pretrain/model/families/llama.py", "self.mlp(self.mlp_norm(x))", "self.mlp(x)"),
    ("src/pretrain/model/families/llama.py", 'file + "self_attn.k_proj.weight"', 'file + "self_attn.v_proj.weight"'),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "one key": {"num_key_value_heads": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "odd head": {"head_dim": 12, "num_key_value_heads": 2},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-6},
    "llama3": {"rope_parameters": LLAMA3, "num_key_value_heads": 2},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "yarn": {"rope_parameters": YARN},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "dynamic, grown": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "max_position_embeddings": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways(
        {**SMALL, **VARIATIONS[name]}, tmp_path, cached=name != "dynamic, grown"
    )  # keys of a shorter text have turned otherwise


def llama3(layers: int, width: int, inner: int, heads: int, **more: object) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": 128001,
        "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1,
        "rope_scaling": None, "use_cache": True, "transformers_version": "4.40.0", **more,
    }  # fmt: skip


SCALING = {
    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
PUBLISHED = {
    "Llama-2-7b": (llama3(32, 4096, 11008, 32, vocab_size=32000, num_key_value_heads=32), 6_738_415_616),
    "Llama-3-8B": (llama3(32, 4096, 14336, 32), 8_030_261_248),
    "Llama-3-70B": (llama3(80, 8192, 28672, 64), 70_553_706_496),
    "Llama-3.1-405B": (llama3(126, 16384, 53248, 128), 405_853_388_800),
    "Llama-3.2-1B": (
        llama3(16, 2048, 8192, 32, tie_word_embeddings=True, head_dim=64, rope_scaling=SCALING), 1_235_814_400,
    ),
    "Llama-3.2-3B": (
        llama3(28, 3072, 8192, 24, tie_word_embeddings=True, head_dim=128, rope_scaling=SCALING), 3_212_749_824,
    ),
    "SmolLM-135M": (
        llama3(30, 576, 1536, 9, num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True), 134_515_008,
    ),
    "Yi-6B": (llama3(32, 4096, 11008, 32, num_key_value_heads=4, vocab_size=64000), 6_061_035_520),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
