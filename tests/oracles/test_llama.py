"""Oracle: Llama 2 and 3 and their kin that need only settings against transformers' LlamaForCausalLM."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles.family import both_ways, count, published, starts_as_published
from pretrain.base.errors import UserError
from pretrain.model.folder import load_folder

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
    ("src/pretrain/model/families/llama.py", "return {**heads, **said, **words}", "return {**said, **words}"),
    ("src/pretrain/model/families/llama.py", "inv_freq", "inv_frequency"),
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


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published(SMALL, tmp_path)


def test_frequencies_that_older_files_carry_are_passed_over(tmp_path: Path) -> None:
    published(SMALL).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    more = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    load_folder(tmp_path)
    save_file({**load_file(file), "model.layers.1.self_attn.rotary_emb.inv": torch.ones(4)}, file)
    with pytest.raises(UserError, match=r"tensor model\.layers\.1\.self_attn\.rotary_emb\.inv belongs to no weight"):
        load_folder(tmp_path)


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
    "Llama-2-13b": (llama3(40, 5120, 13824, 40, vocab_size=32000, num_key_value_heads=40), 13_015_864_320),
    "Llama-2-70b": (llama3(80, 8192, 28672, 64, vocab_size=32000), 68_976_648_192),
    "Llama-3-8B": (llama3(32, 4096, 14336, 32), 8_030_261_248),
    "Llama-3-70B": (llama3(80, 8192, 28672, 64), 70_553_706_496),
    "Llama-3.1-405B": (llama3(126, 16384, 53248, 128), 405_853_388_800),
    "Llama-3.2-1B": (
        llama3(16, 2048, 8192, 32, tie_word_embeddings=True, head_dim=64, rope_scaling=SCALING), 1_235_814_400,
    ),
    "Llama-3.2-3B": (
        llama3(28, 3072, 8192, 24, tie_word_embeddings=True, head_dim=128, rope_scaling=SCALING), 3_212_749_824,
    ),
}  # fmt: skip
OLD: dict[str, object] = {"vocab_size": 32000, "rope_theta": 10000.0}
ALL: dict[str, object] = {"num_key_value_heads": 32, "rope_theta": 10000.0}
SMOL: dict[str, object] = {"vocab_size": 49152, "tie_word_embeddings": True, "rope_theta": 10000.0}
SMOL2: dict[str, object] = {
    "vocab_size": 49152, "tie_word_embeddings": True, "is_llama_config": True, "rope_interleaved": False,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
}  # fmt: skip
FIRST = {key: value for key, value in llama3(26, 3200, 8640, 32, **OLD).items() if key != "num_key_value_heads"}
KIN = {
    "CodeLlama-7b": (
        llama3(32, 4096, 11008, 32, vocab_size=32016, num_key_value_heads=32, rope_theta=1000000), 6_738_546_688,
    ),
    "Falcon3-7B-Base": (
        llama3(28, 3072, 23040, 12, num_key_value_heads=4, head_dim=256, vocab_size=131072, rope_theta=1000042),
        7_455_550_464,
    ),
    "SmolLM-135M": (llama3(30, 576, 1536, 9, num_key_value_heads=3, **SMOL), 134_515_008),
    "SmolLM-360M": (llama3(32, 960, 2560, 15, num_key_value_heads=5, **SMOL), 361_821_120),
    "SmolLM-1.7B": (llama3(24, 2048, 8192, 32, num_key_value_heads=32, **SMOL), 1_711_376_384),
    "SmolLM2-135M": (llama3(30, 576, 1536, 9, num_key_value_heads=3, **SMOL2, rope_theta=100000), 134_515_008),
    "SmolLM2-1.7B": (llama3(24, 2048, 8192, 32, num_key_value_heads=32, **SMOL2, rope_theta=130000), 1_711_376_384),
    "SOLAR-10.7B-v1.0": (llama3(48, 4096, 14336, 32, **OLD), 10_731_524_096),
    "TinyLlama_v1.1": (llama3(22, 2048, 5632, 32, num_key_value_heads=4, **OLD), 1_100_048_384),
    "Yi-6B": (llama3(32, 4096, 11008, 32, num_key_value_heads=4, vocab_size=64000, rope_theta=5e6), 6_061_035_520),
    "Yi-34B": (llama3(60, 7168, 20480, 56, vocab_size=64000, rope_theta=5e6), 34_388_917_248),
    "open_llama_3b": ({key: value for key, value in FIRST.items() if not key.startswith("rope")}, 3_426_473_600),
    "deepseek-llm-7b-base": (llama3(30, 4096, 11008, 32, **ALL, vocab_size=102400), 6_910_365_696),
    "deepseek-llm-67b-base": (llama3(95, 8192, 22016, 64, vocab_size=102400, rope_theta=1e4), 67_425_001_472),
}  # fmt: skip


@pytest.mark.parametrize("name", [*PUBLISHED, *KIN])
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = (PUBLISHED | KIN)[name]
    assert count(table, tmp_path) == parameters
