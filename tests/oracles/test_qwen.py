"""Oracle: Qwen 2, 2.5 and 3 against transformers' Qwen2ForCausalLM and Qwen3ForCausalLM."""

from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count, generates_as_published, sees_both_sides, starts_as_published

MUTANTS = [
    ("src/pretrain/model/families/qwen2.py", 'file + "self_attn.k_proj.bias"', 'file + "self_attn.v_proj.bias"'),
    ("src/pretrain/model/families/qwen2.py", "sliding(self.sliding_window)", "sliding(self.sliding_window + 1)"),
    ("src/pretrain/model/families/qwen3.py", 'norm="head"', "norm=None"),
    ("src/pretrain/model/layers/grouped.py", "keep=None if self.window is None else self.window.before", "keep=2"),
]
SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "all heads": {"num_key_value_heads": 4, "rms_norm_eps": 1e-5},
    "windows": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "yarn": {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16}},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3"])
@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, kind: str, tmp_path: Path) -> None:
    head = {"head_dim": 12} if kind == "Qwen3" else {}
    both_ways({**SMALL, "architectures": [f"{kind}ForCausalLM"], **head, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3"])
def test_it_generates_sees_and_starts_as_published(kind: str, tmp_path: Path) -> None:
    table = {**SMALL, "architectures": [f"{kind}ForCausalLM"], **VARIATIONS["windows"], "head_dim": 8}
    generates_as_published(table, tmp_path / "generates")
    sees_both_sides({**table, "num_hidden_layers": 1, "max_window_layers": 0}, tmp_path / "sides")
    starts_as_published(table, tmp_path / "starts")


def qwen(kind: str, layers: int, width: int, inner: int, heads: int, kv: int, **more: object) -> dict[str, object]:
    return {
        "architectures": [f"Qwen{kind}ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02,
        "intermediate_size": inner, "max_position_embeddings": 32768, "max_window_layers": layers,
        "model_type": f"qwen{kind}", "num_attention_heads": heads, "num_hidden_layers": layers,
        "num_key_value_heads": kv, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": True,
        "use_sliding_window": False, "vocab_size": 151936, **more,
    }  # fmt: skip


THREE: dict[str, object] = {"head_dim": 128, "attention_bias": False, "rope_scaling": None, "sliding_window": None}
TIED: dict[str, object] = {"tie_word_embeddings": True}
PUBLISHED = {
    "Qwen2.5-0.5B": (qwen("2", 24, 896, 4864, 14, 2, **TIED), 494_032_768),
    "Qwen2.5-1.5B": (qwen("2", 28, 1536, 8960, 12, 2, **TIED), 1_543_714_304),
    "Qwen2.5-7B": (qwen("2", 28, 3584, 18944, 28, 4, vocab_size=152064), 7_615_616_512),
    "Qwen3-0.6B": (qwen("3", 28, 1024, 3072, 16, 8, **TIED, **THREE), 596_049_920),
    "Qwen3-1.7B": (qwen("3", 28, 2048, 6144, 16, 8, **TIED, **THREE), 1_720_574_976),
    "Qwen3-8B": (qwen("3", 36, 4096, 12288, 32, 8, **THREE), 8_190_735_360),
    "Qwen3-32B": (qwen("3", 64, 5120, 25600, 64, 8, **THREE), 32_762_123_264),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
