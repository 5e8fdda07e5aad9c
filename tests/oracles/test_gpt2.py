"""Oracle: GPT-2 against transformers' GPT2LMHeadModel."""

from pathlib import Path
from typing import Any

import pytest

from oracles.family import both_ways, count, starts_as_published

MUTANTS = [
    ("src/pretrain/model/layers/feed_forward.py", '"gelu_new": partial(gelu, approximate="tanh")', '"gelu_new": gelu'),
    ("src/pretrain/model/families/gpt2.py", "self.mlp(self.mlp_norm(x))", "self.mlp(x)"),
    ("src/pretrain/model/families/gpt2.py", '"ln_1"', '"ln_2"'),
    ("src/pretrain/model/families/gpt2.py", '"mlp.c_proj", "embed mlp", std=quiet', '"mlp.c_proj", "embed mlp"'),
    ("src/pretrain/model/decoder.py", "else x + self.places(positions)", "else x"),
]
SMALL: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"], "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "inner": {"n_inner": 72, "n_head": 2, "layer_norm_epsilon": 1e-3},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path)


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published(SMALL, tmp_path)


def gpt2(layers: int, width: int, heads: int) -> dict[str, object]:
    return {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": width, "n_head": heads,
        "n_layer": layers, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    }  # fmt: skip


PUBLISHED = {
    "gpt2": (gpt2(12, 768, 12), 124_439_808),
    "gpt2-medium": (gpt2(24, 1024, 16), 354_823_168),
    "gpt2-large": (gpt2(36, 1280, 20), 774_030_080),
    "gpt2-xl": (gpt2(48, 1600, 25), 1_557_611_200),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
