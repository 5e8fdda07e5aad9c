"""Oracle: RoBERTa against transformers' RobertaForMaskedLM."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.family import apart, both_ways, count, documents_stay_apart, published, starts_as_published
from pretrain.base.errors import UserError
from pretrain.model.config import read_config
from pretrain.model.folder import load_folder

MUTANTS = [
    ("src/pretrain/model/encoder.py", "positions + (self.padding + 1)", "positions + self.padding"),
    ("src/pretrain/model/encoder.py", "text.cumsum(1) * text + self.padding", "text.cumsum(1) + self.padding"),
    ("src/pretrain/model/families/roberta.py", "self.attention_norm(x + self.attention(x, where))",
     "x + self.attention_norm(self.attention(x, where))"),
    ("src/pretrain/model/families/roberta.py", "self.mlp_norm(x + self.mlp(x))", "x + self.mlp_norm(self.mlp(x))"),
    ("src/pretrain/model/families/roberta.py", '"attention.self.key"', '"attention.self.value"'),
    ("src/pretrain/model/families/roberta.py", "padding=c.pad_token_id", "padding=1"),
    ("src/pretrain/model/families/roberta.py", '{"layer_norm_eps": 1e-12', '{"layer_norm_eps": 1e-5'),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "architectures": ["RobertaForMaskedLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 66, "type_vocab_size": 1,
    "layer_norm_eps": 1e-5, "pad_token_id": 1,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two types": {"type_vocab_size": 2, "layer_norm_eps": 1e-3},
    "padding elsewhere": {"pad_token_id": 4, "hidden_size": 36},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    table = {**SMALL, **VARIATIONS[name]}
    both_ways(table, tmp_path, cached=False, floor=0.01)
    ours, _, _ = load_folder(tmp_path / "ours")
    documents_stay_apart(ours, torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(2)))


@torch.no_grad()
def test_padding_is_not_counted_and_stands_at_its_own_number(tmp_path: Path) -> None:
    theirs = published(SMALL)
    theirs.save_pretrained(tmp_path)
    ours, _, config = load_folder(tmp_path)
    assert config.longest == 64
    tokens = torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(0))
    tokens[0, :3], tokens[0, 11], tokens[1, 30:] = 1, 1, 1
    assert apart(ours.logits(tokens), theirs(tokens).logits) <= 1e-5  # type: ignore[operator]


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published({**SMALL, "hidden_size": 128, "type_vocab_size": 8, "max_position_embeddings": 514}, tmp_path)


def test_what_is_unsaid_is_what_transformers_takes(tmp_path: Path) -> None:
    said = {name: value for name, value in SMALL.items() if name not in ("layer_norm_eps", "max_position_embeddings")}
    (tmp_path / "config.json").write_text(json.dumps(said))
    _, config = read_config(tmp_path)
    assert (config.layer_norm_eps, config.longest) == (1e-12, 510)


def test_padding_that_leaves_no_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "pad_token_id": 65}))
    with pytest.raises(UserError, match="pad_token_id 65 leaves no place among 66"):
        read_config(tmp_path)


def roberta(layers: int, width: int, heads: int, vocab: int = 50265) -> dict[str, object]:
    return {
        "architectures": ["RobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": width,
        "initializer_range": 0.02, "intermediate_size": 4 * width, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514, "model_type": "roberta", "num_attention_heads": heads,
        "num_hidden_layers": layers, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": vocab,
    }  # fmt: skip


PUBLISHED = {
    "roberta-base": (roberta(12, 768, 12), 124_697_433),
    "distilroberta-base": (roberta(6, 768, 12), 82_170_201),
    "roberta-large": (roberta(24, 1024, 16), 355_412_057),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
