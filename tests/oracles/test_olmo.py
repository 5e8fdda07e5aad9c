"""Oracle: OLMo 2 and 3 against transformers' Olmo2ForCausalLM and Olmo3ForCausalLM."""

from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count, generates_as_published, sees_both_sides, starts_as_published
from pretrain.base.extension import find
from pretrain.model.folder import make
from pretrain.model.weights import initialise

MUTANTS = [
    ("src/pretrain/model/families/olmo2.py", 'norm="all"', 'norm=None'),
    ("src/pretrain/model/families/olmo2.py", "self.mlp_norm(self.mlp(x))", "self.mlp(self.mlp_norm(x))"),
    ("src/pretrain/model/families/olmo2.py", "self.attention_norm(self.attention(x, where))",
     "self.attention(self.attention_norm(x), where)"),
    ("src/pretrain/model/families/olmo2.py", '"self_attn.q_norm"', '"self_attn.k_norm"'),
    ("src/pretrain/model/layers/grouped.py", 'q, k = self.q_norm(q), self.k_norm(k)\n        q, k, v = (part',
     'q, k = self.q_norm(q), self.q_norm(k)\n        q, k, v = (part'),
    ("src/pretrain/model/families/olmo2.py", "CUT = 3.0", "CUT = 4.0"),
    ("src/pretrain/model/families/olmo3.py", "every, cut=CUT)", "every)"),
    ("src/pretrain/model/families/olmo3.py", "(layer + 1) % 4", "layer % 4"),
    ("src/pretrain/model/families/olmo3.py", "sliding(self.sliding_window)", "sliding(self.sliding_window + 1)"),
    ("src/pretrain/model/families/olmo3.py", "rotary=GLOBAL if window is None else LOCAL", "rotary=GLOBAL"),
    ("src/pretrain/model/families/olmo3.py", "c.rope_theta, c.rope_scaling, c.max", "c.rope_theta, None, c.max"),
    ("src/pretrain/model/families/olmo3.py", "self.mlp_norm(self.mlp(x))", "self.mlp(self.mlp_norm(x))"),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "pad_token_id": None,
    "eos_token_id": 3, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}  # fmt: skip
SLIDING: dict[str, Any] = {"num_hidden_layers": 5, "sliding_window": 7}
NEAR = {"rope_type": "default", "rope_theta": 5e5}
YARN = {
    "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0, "rope_type": "yarn",
    "original_max_position_embeddings": 16,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "two": {"architectures": ["Olmo2ForCausalLM"]},
    "two, grouped": {"architectures": ["Olmo2ForCausalLM"], "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "two, stretched": {"architectures": ["Olmo2ForCausalLM"], "rope_parameters": {**NEAR, **YARN}},
    "three": {
        "architectures": ["Olmo3ForCausalLM"], **SLIDING,
        "rope_parameters": {"full_attention": NEAR, "sliding_attention": NEAR},
    },
    "three, stretched": {
        "architectures": ["Olmo3ForCausalLM"], **SLIDING, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_parameters": {"full_attention": {**NEAR, **YARN}, "sliding_attention": NEAR},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_generates_as_published(name: str, tmp_path: Path) -> None:
    generates_as_published({**SMALL, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("name", ["three"])
def test_it_sees_both_sides_where_it_is_not_causal(name: str, tmp_path: Path) -> None:
    sees_both_sides({**SMALL, **VARIATIONS[name], "num_hidden_layers": 1}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_starts_as_published(name: str, tmp_path: Path) -> None:
    starts_as_published({**SMALL, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_no_first_weight_lies_beyond_three_deviations(name: str, tmp_path: Path) -> None:
    family = find("model.families", f"olmo{'23'[name == 'three']}")
    config = family.Config(97, 64, 72, 2, 4, 4)
    model = make(family, config)
    initialise(model, family.weights(config), 0.02, 0)
    largest = max(float(p.detach().abs().max()) for p in model.parameters() if p.dim() > 1)
    assert 0.055 < largest <= 0.06


def olmo(kind: str, layers: int, width: int, inner: int, heads: int, kv: int, **more: object) -> dict[str, object]:
    return {
        "architectures": [f"Olmo{kind}ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02,
        "intermediate_size": inner, "max_position_embeddings": 4096, "model_type": f"olmo{kind}",
        "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv, "pad_token_id": 100277,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 500000, "tie_word_embeddings": False,
        "torch_dtype": "float32", "transformers_version": "4.47.0", "use_cache": False, "vocab_size": 100352, **more,
    }  # fmt: skip


THREE: dict[str, object] = {
    "vocab_size": 100278, "max_position_embeddings": 65536, "sliding_window": 4096,
    "rope_scaling": {**YARN, "original_max_position_embeddings": 8192},
}  # fmt: skip
TYPES = ["sliding_attention"] * 3 + ["full_attention"]
PUBLISHED = {
    "OLMo-2-0425-1B": (olmo("2", 16, 2048, 8192, 16, 16), 1_484_916_736),
    "OLMo-2-1124-7B": (olmo("2", 32, 4096, 11008, 32, 32), 7_298_617_344),
    "OLMo-2-1124-13B": (olmo("2", 40, 5120, 13824, 40, 40), 13_716_198_400),
    "OLMo-2-0325-32B": (olmo("2", 64, 5120, 27648, 40, 8), 32_234_279_936),
    "Olmo-3-1025-7B": (olmo("3", 32, 4096, 11008, 32, 32, **THREE, layer_types=TYPES * 8), 7_298_011_136),
    "Olmo-3-1125-32B": (olmo("3", 64, 5120, 27648, 40, 8, **THREE, layer_types=TYPES * 16), 32_233_522_176),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
