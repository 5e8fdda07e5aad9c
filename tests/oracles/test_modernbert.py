"""Oracle: ModernBERT against transformers' ModernBertForMaskedLM."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.family import both_ways, count, documents_stay_apart, starts_as_published
from pretrain.base.errors import UserError
from pretrain.model.config import read_config
from pretrain.model.folder import load_folder

MUTANTS = [
    ("src/pretrain/model/families/modernbert.py", "half = self.local_attention // 2",
     "half = self.local_attention // 2 - 1"),
    ("src/pretrain/model/families/modernbert.py", "GLOBAL, LOCAL = 0, 1", "GLOBAL, LOCAL = 1, 0"),
    ("src/pretrain/model/families/modernbert.py", "Window(half, half)", "Window(half)"),
    ("src/pretrain/model/families/modernbert.py", "self.attention(self.attention_norm(x), where)",
     "self.attention(x, where)"),
    ("src/pretrain/model/families/modernbert.py", "self.mlp(self.mlp_norm(x))", "self.mlp(x)"),
    ("src/pretrain/model/families/modernbert.py", "every[1:]", "every"),
    ("src/pretrain/model/families/modernbert.py", "later[0] if later", "2 if later"),
    ("src/pretrain/model/families/modernbert.py", 'row("mlp.down", "mlp.Wo", "embed mlp", std=quiet)',
     'row("mlp.down", "mlp.Wo", "embed mlp")'),
    ("src/pretrain/model/layers/feed_forward.py", "self.activation(gate) * up", "gate * self.activation(up)"),
    ("src/pretrain/model/encoder.py", "self.transform(self.norm(x))", "self.transform(x)"),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 40,
    "num_hidden_layers": 5, "num_attention_heads": 4, "max_position_embeddings": 64, "local_attention": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every second": {"layer_types": ["full_attention", "sliding_attention"] * 2 + ["full_attention"], "norm_eps": 1e-3},
    "all global": {"layer_types": ["full_attention"] * 5},
    "two layers": {"num_hidden_layers": 2, "global_attn_every_n_layers": 2,
                   "layer_types": ["full_attention", "sliding_attention"]},
    "one global": {"layer_types": ["full_attention"] + ["sliding_attention"] * 4, "local_attention": 16},
    "turns": {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 3e3},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7e2}}},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path, cached=False)


def test_texts_in_a_row_are_as_if_each_stood_alone(tmp_path: Path) -> None:
    """Unpadded: global layers, and windows that reach over a text's end."""
    both_ways(SMALL, tmp_path, cached=False)
    ours, _, _ = load_folder(tmp_path / "ours")
    documents_stay_apart(ours, torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(2)))


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published({**SMALL, "hidden_size": 64, "intermediate_size": 96, "pad_token_id": None}, tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"],
          "num_hidden_layers": 4}, "layer_types = .* is not supported"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}},
         "full_attention is not scaled"),
        ({"norm_bias": True}, "norm_bias = True is not supported"),
    ],
)  # fmt: skip
def test_what_no_published_one_has_is_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, **more}))
    with pytest.raises(UserError, match=said):
        read_config(tmp_path)


def modernbert(layers: int, width: int, inner: int, heads: int) -> dict[str, object]:
    return {
        "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0,
        "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False,
        "embedding_dropout": 0.0, "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
        "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": width,
        "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": inner,
        "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192,
        "mlp_bias": False, "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05,
        "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 50283,
        "position_embedding_type": "absolute", "reference_compile": True, "repad_logits_with_grad": False,
        "sep_token_id": 50282, "sparse_pred_ignore_index": -100, "sparse_prediction": False,
        "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
        "vocab_size": 50368,
    }  # fmt: skip


PUBLISHED = {
    "ModernBERT-base": (modernbert(22, 768, 1152, 12), 149_655_232),
    "ModernBERT-large": (modernbert(28, 1024, 2624, 16), 395_881_664),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
