"""Closed form: a config.json that we write is read as the same Config; a word we do not know is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.config import read_config, to_json
from pretrain.model.layers.rope import RopeScaling

MUTANTS = [
    ("src/pretrain/model/config.py", '**getattr(family, "UNSAID", {}), **said', "**said"),
    ("src/pretrain/model/config.py", "values[field.name] = None", "continue"),
    ("src/pretrain/model/config.py", "if type(None) not in get_args(field.type):", "if False:"),
    ("src/pretrain/model/config.py", "name in again and again[name] != value", "False"),
    ("src/pretrain/model/config.py", "value not in (False, [], {})", "False"),
    ("src/pretrain/model/families/gemma3.py", 'if near["rope_scaling"] is not None:', "if False:"),
    ("src/pretrain/model/families/gemma3.py", 'said.get("rope_local_base_freq", 10_000.0)', "10_000.0"),
    ("src/pretrain/model/families/gemma3.py", 'said.get("rope_scaling") or {}', "{}"),
    ("src/pretrain/model/families/gemma3.py", 'said.get("_sliding_window_pattern", 6)', "6"),
    ("src/pretrain/model/families/olmo3.py", 'if near != {"rope_theta"', 'if not near != {"rope_theta"'),
    ("src/pretrain/model/families/olmo3.py", 'said.get("rope_scaling") or {}', "{}"),
]
SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
YARN = RopeScaling(4.0, original_max_position_embeddings=16, beta_fast=24.0, rope_type="yarn")
LINEAR = RopeScaling(8.0, rope_type="linear")
SAID: dict[str, list[dict[str, Any]]] = {
    "llama": [{"head_dim": 12, "tie_word_embeddings": True, "rms_norm_eps": 1e-3, "rope_scaling": YARN}],
    "mistral": [{"head_dim": 8}, {"head_dim": 10, "sliding_window": 7, "rope_theta": 3e4, "rope_scaling": LINEAR}],
    "gemma2": [{}, {"sliding_window": 7, "attn_logit_softcapping": None, "final_logit_softcapping": 2.0}],
    "gemma3": [{}, {"sliding_window_pattern": 2, "rope_local_base_freq": 5e3, "rope_scaling": LINEAR}],
    "olmo2": [{}, {"rope_theta": 3e4, "tie_word_embeddings": True}],
    "olmo3": [{}, {"rope_theta": 3e4, "sliding_window": 7, "rope_scaling": YARN}],
}  # fmt: skip


def read(folder: Path, table: dict[str, Any]) -> Any:
    (folder / "config.json").write_text(json.dumps(table))
    return read_config(folder)[1]


@pytest.mark.parametrize("name", SAID)
def test_what_is_written_is_read_as_the_same_in_the_words_of_either_age(name: str, tmp_path: Path) -> None:
    family = find("model.families", name)
    for said in SAID[name]:
        config = family.Config(**SIZES, **said)
        table = to_json(family, config, "float32")
        assert read(tmp_path, table) == config
        old = {key: value for key, value in table.items() if key not in ("rope_parameters", "layer_types")}
        new = {key: value for key, value in table.items() if key not in ("rope_theta", "rope_scaling")}
        if name == "gemma3":
            del new["rope_local_base_freq"], new["sliding_window_pattern"]
            del old["sliding_window_pattern"]
        assert read(tmp_path, old) == read(tmp_path, new) == config


def test_what_is_not_said_is_what_the_published_class_says(tmp_path: Path) -> None:
    mistral = {"architectures": ["MistralForCausalLM"], **SIZES}
    assert read(tmp_path, mistral).sliding_window == 4096 and read(tmp_path, mistral).rms_norm_eps == 1e-6
    assert read(tmp_path, {**mistral, "sliding_window": None}).sliding_window is None


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "attn_logit_softcapping = 50.0 is not known to the family": ("Gemma3", {"attn_logit_softcapping": 50.0}),
    "hidden_activation = 'relu' is not supported; expected 'gelu_pytorch_tanh'": (
        "Gemma2", {"hidden_activation": "relu"},
    ),
    "tie_word_embeddings = False is not supported; expected True": ("Gemma3", {"tie_word_embeddings": False}),
    "layer_types = ['full_attention', 'sliding_attention'] is not supported": (
        "Gemma2", {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "rope_parameters: sliding_attention is not scaled": (
        "Gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
    ),
    "rope_parameters: sliding_attention has a table of its own": (
        "Olmo3", {"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_theta": 1e4}}},
    ),
    "rope_type 'longrope' is not known; expected linear, dynamic, llama3, yarn": (
        "Llama", {"rope_scaling": {"type": "longrope", "factor": 4.0}},
    ),
    "rope_type llama3 needs low_freq_factor": (
        "Llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0,
                                   "original_max_position_embeddings": 8192}},
    ),
    "attention_biass = True is not known to the family; nearest: attention_bias": ("Olmo2", {"attention_biass": True}),
    "num_attention_heads 4 is no multiple of num_key_value_heads 3": ("Mistral", {"num_key_value_heads": 3}),
    "a head of 7 cannot be rotated in pairs": ("Mistral", {"head_dim": 7}),
    "rms_norm_eps = null is not supported; expected a config.json of LlamaForCausalLM": (
        "Llama", {"rms_norm_eps": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_we_would_not_compute_is_refused_by_name(line: str, tmp_path: Path) -> None:
    kind, more = REFUSED[line]
    with pytest.raises(UserError) as raised:
        read(tmp_path, {"architectures": [f"{kind}ForCausalLM"], **SIZES, **more})
    said = str(raised.value)
    assert said.startswith(f"{tmp_path}/config.json: ") and line in said and "\n" not in said


def test_a_size_that_is_missing_is_named(tmp_path: Path) -> None:
    table = {"architectures": ["Olmo2ForCausalLM"], **SIZES}
    del table["hidden_size"]
    with pytest.raises(UserError, match=r"config\.json: hidden_size is not said; expected a config\.json of Olmo2"):
        read(tmp_path, table)
