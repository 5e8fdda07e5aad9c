"""Oracle: Mistral against transformers' MistralForCausalLM."""

from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count, generates_as_published, sees_both_sides, starts_as_published

MUTANTS = [
    ("src/pretrain/model/families/mistral.py", "sliding(self.sliding_window)", "sliding(self.sliding_window + 1)"),
    ("src/pretrain/attention/mask.py", "Window(width - 1, width - 1)", "Window(width - 1)"),
    ("src/pretrain/model/families/mistral.py", ", window=c.window)", ")"),
    ("src/pretrain/model/families/mistral.py", "self.mlp(self.mlp_norm(x))", "self.mlp(x)"),
    ("src/pretrain/model/families/mistral.py", 'file + "mlp.gate_proj.weight"', 'file + "mlp.up_proj.weight"'),
    ("src/pretrain/attention/mask.py", "return replace(mask, window=Window(window.before) if mask.causal else window)",
     "return mask"),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "sliding_window": None,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "no window": {},
    "window": {"sliding_window": 7},
    "window, wide": {"sliding_window": 64},
    "window, stretched": {
        "sliding_window": 7, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "narrow heads": {"head_dim": 6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "window, tied": {"sliding_window": 12, "tie_word_embeddings": True, "num_key_value_heads": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path)


def test_it_generates_as_published(tmp_path: Path) -> None:
    generates_as_published({**SMALL, **VARIATIONS["window"]}, tmp_path)


def test_it_sees_both_sides_where_it_is_not_causal(tmp_path: Path) -> None:
    sees_both_sides({**SMALL, "sliding_window": 7, "num_hidden_layers": 1}, tmp_path)


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published(SMALL, tmp_path)


def mistral(layers: int, width: int, inner: int, heads: int, **more: object) -> dict[str, object]:
    return {
        "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02, "intermediate_size": inner,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": heads,
        "num_hidden_layers": layers, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.0", "use_cache": True, "vocab_size": 32768, **more,
    }  # fmt: skip


OLD: dict[str, object] = {"vocab_size": 32000, "rope_theta": 10000.0, "sliding_window": 4096}
LATE: dict[str, object] = {"vocab_size": 131072, "head_dim": 128}
PUBLISHED = {
    "Mistral-7B-v0.1": (mistral(32, 4096, 14336, 32, **OLD), 7_241_732_096),
    "Mistral-7B-v0.3": (mistral(32, 4096, 14336, 32), 7_248_023_552),
    "Mistral-Nemo-Base-2407": (mistral(40, 5120, 14336, 32, **LATE, max_position_embeddings=1024000), 12_247_782_400),
    "Ministral-8B-Instruct-2410": (
        mistral(36, 4096, 12288, 32, **LATE, rope_theta=100000000.0) | {"sliding_window": 32768}, 8_019_808_256,
    ),
    "Mistral-Small-24B-Base-2501": (
        mistral(40, 5120, 32768, 32, **LATE, rope_theta=100000000.0), 23_572_403_200,
    ),
    "Mistral-Large-Instruct-2407": (mistral(88, 12288, 28672, 96, head_dim=128), 122_610_069_504),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
