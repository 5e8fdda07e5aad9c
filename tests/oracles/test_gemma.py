"""Oracle: Gemma 2 and 3 against transformers' Gemma2ForCausalLM and Gemma3ForCausalLM."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batches import batch
from oracles.family import (
    BOUND,
    apart,
    both_ways,
    count,
    generates_as_published,
    published,
    sees_both_sides,
    starts_as_published,
)
from pretrain.base.extension import leaf
from pretrain.model.folder import load_folder
from pretrain.objective.objective import losses

MUTANTS = [
    ("src/pretrain/model/families/gemma2.py", "return None if layer % 2 else", "return None if not layer % 2 else"),
    ("src/pretrain/model/families/gemma2.py", "sliding(self.sliding_window)", "sliding(self.sliding_window + 1)"),
    ("src/pretrain/model/families/gemma2.py", "scale=c.query_pre_attn_scalar**-0.5", "scale=c.head_dim**-0.5"),
    ("src/pretrain/model/families/gemma2.py", "softcap=c.attn_logit_softcapping", "softcap=None"),
    ("src/pretrain/model/families/gemma2.py", "softcap=c.final_logit_softcapping", "softcap=None"),
    ("src/pretrain/model/families/gemma2.py", "embed_scale=c.hidden_size**0.5", "embed_scale=None"),
    ("src/pretrain/model/families/gemma2.py", "unit_offset=True", "unit_offset=False"),
    ("src/pretrain/model/families/gemma2.py", '"pre_feedforward_layernorm"', '"post_attention_layernorm"'),
    ("src/pretrain/model/families/gemma2.py", "self.attention_out_norm(self.attention(self.attention_norm(x), where))",
     "self.attention(self.attention_norm(x), where)"),
    ("src/pretrain/model/families/gemma2.py", "activation=ACTIVATION", 'activation="gelu"'),
    ("src/pretrain/model/families/gemma2.py", 'draw="zeros")', 'draw="ones")'),
    ("src/pretrain/model/decoder.py", "self.softcap * torch.tanh(logits / self.softcap)", "torch.tanh(logits)"),
    ("src/pretrain/objective/objective.py", "softcap=softcap, shared", "softcap=None, shared"),
    ("src/pretrain/model/families/gemma3.py", "c.query_pre_attn_scalar**-0.5", "c.head_dim**-0.5"),
    ("src/pretrain/model/families/gemma3.py", "rotary=GLOBAL if window is None else LOCAL", "rotary=GLOBAL"),
    ("src/pretrain/model/families/gemma3.py", "unit_offset=True, rotary", "rotary"),
    ("src/pretrain/model/families/gemma3.py", "(layer + 1) % self.sliding", "layer % self.sliding"),
    ("src/pretrain/model/families/gemma3.py", "c.rope_theta, c.rope_scaling, c.max", "c.rope_theta, None, c.max"),
    ("src/pretrain/model/families/gemma3.py", "Rotary(c.head_dim, c.rope_local_base_freq)",
     "Rotary(c.head_dim, c.rope_local_base_freq, c.rope_scaling, c.max_position_embeddings)"),
    ("src/pretrain/model/families/gemma3.py", 'axes in ("embed", "head")', 'axes == "embed"'),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 36, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 64, "query_pre_attn_scalar": 17,
    "sliding_window": 7,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "two": {"architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "two, one key": {"architectures": ["Gemma2ForCausalLM"], "num_key_value_heads": 1, "rms_norm_eps": 1e-4},
    "two, no caps": {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": None, "final_logit_softcapping": None,
    },
    "two, wide window": {"architectures": ["Gemma2ForCausalLM"], "sliding_window": 64, "num_hidden_layers": 2},
    "three": {"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7},
    "three, one key": {"architectures": ["Gemma3ForCausalLM"], "num_key_value_heads": 1, "sliding_window_pattern": 2},
    "three, all local": {"architectures": ["Gemma3ForCausalLM"]},
    "three, stretched": {
        "architectures": ["Gemma3ForCausalLM"], "sliding_window_pattern": 3, "rms_norm_eps": 1e-4,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_learns_from_the_published_loss(name: str, tmp_path: Path) -> None:
    theirs = published({**SMALL, **VARIATIONS[name]})
    theirs.save_pretrained(tmp_path)
    ours, _, _ = load_folder(tmp_path)
    made = batch(2, 40)
    made = replace(made, weights=np.ones_like(made.weights))
    loss = losses(ours, ours, leaf("objective.kinds", "next_token")(), made, documents=False)["next_token"].mean
    logits = theirs(torch.from_numpy(made.tokens)).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(made.targets).flatten())
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    there = theirs.get_parameter("model.embed_tokens.weight").grad
    here = ours.get_parameter("embed.weight").grad
    assert here is not None and there is not None
    there[0] = here[0]  # theirs takes token 0 for padding, and gives it no gradient as an input
    assert apart(here, there) <= BOUND


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_generates_as_published(name: str, tmp_path: Path) -> None:
    generates_as_published({**SMALL, **VARIATIONS[name]}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_sees_both_sides_where_it_is_not_causal(name: str, tmp_path: Path) -> None:
    sees_both_sides({**SMALL, **VARIATIONS[name], "num_hidden_layers": 1}, tmp_path)


@pytest.mark.parametrize("name", ["two", "three"])
def test_it_starts_as_published(name: str, tmp_path: Path) -> None:
    starts_as_published({**SMALL, **VARIATIONS[name], "pad_token_id": None}, tmp_path)


def gemma(layers: int, width: int, inner: int, heads: int, kv: int, **more: object) -> dict[str, object]:
    return {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": width,
        "initializer_range": 0.02, "intermediate_size": inner, "num_attention_heads": heads,
        "num_hidden_layers": layers, "num_key_value_heads": kv, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "torch_dtype": "float32", "use_cache": True, **more,
    }  # fmt: skip


def gemma2(*sizes: int, **more: object) -> dict[str, object]:
    return gemma(*sizes, **more) | {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "model_type": "gemma2",
        "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096, "vocab_size": 256000,
    }  # fmt: skip


def gemma3(*sizes: int, **more: object) -> dict[str, object]:
    return gemma(*sizes) | {
        "architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "rope_local_base_freq": 10000,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "vocab_size": 262144, **more,
    }  # fmt: skip


LARGE: dict[str, object] = {
    "max_position_embeddings": 131072, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    "vocab_size": 262208,
}  # fmt: skip
TYPES = (["sliding_attention"] * 5 + ["full_attention"]) * 3
PUBLISHED = {
    "gemma-2-2b": (gemma2(26, 2304, 9216, 8, 4), 2_614_341_888),
    "gemma-2-9b": (gemma2(42, 3584, 14336, 16, 8), 9_241_705_984),
    "gemma-2-27b": (gemma2(46, 4608, 36864, 32, 16, head_dim=128, query_pre_attn_scalar=144), 27_227_128_320),
    "gemma-3-270m": (
        gemma3(18, 640, 2048, 4, 1, layer_types=TYPES, _sliding_window_pattern=6, use_bidirectional_attention=False),
        268_098_176,
    ),
    "gemma-3-1b-pt": (gemma3(26, 1152, 6912, 4, 1), 999_885_952),
    "gemma-3-4b-pt, its text": (gemma3(34, 2560, 10240, 8, 4, **LARGE), 3_880_263_168),
    "gemma-3-12b-pt, its text": (gemma3(48, 3840, 15360, 16, 8, **LARGE), 11_766_034_176),
    "gemma-3-27b-pt, its text": (
        gemma3(62, 5376, 21504, 32, 16, **LARGE, head_dim=128, query_pre_attn_scalar=168), 27_009_346_304,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
