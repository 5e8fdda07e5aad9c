"""Oracle: BERT against transformers' BertForMaskedLM."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles.family import both_ways, count, documents_stay_apart, published, starts_as_published
from pretrain.base.errors import UserError
from pretrain.model.config import read_config
from pretrain.model.folder import load_folder

MUTANTS = [
    ("src/pretrain/model/encoder.py", "self.norm(gelu(self.dense(x)))", "gelu(self.norm(self.dense(x)))"),
    ("src/pretrain/model/encoder.py", "x = x + self.kinds.weight[0]", "pass"),
    ("src/pretrain/model/encoder.py", "return self.embed_norm(x)", "return x"),
    ("src/pretrain/model/families/bert.py", "self.attention_norm(x + self.attention(x, where))",
     "x + self.attention_norm(self.attention(x, where))"),
    ("src/pretrain/model/families/bert.py", "self.mlp_norm(x + self.mlp(x))", "x + self.mlp_norm(self.mlp(x))"),
    ("src/pretrain/model/families/bert.py", '"attention.self.key"', '"attention.self.value"'),
    ("src/pretrain/model/families/bert.py", '("gamma", "beta")', '("beta", "gamma")'),
    ("src/pretrain/model/families/bert.py", 'said.get("is_decoder")', 'said.get("decodes")'),
]  # fmt: skip
SMALL: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one type": {"type_vocab_size": 1, "layer_norm_eps": 1e-3},
    "odd head": {"hidden_size": 36, "num_attention_heads": 4, "num_hidden_layers": 3},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    table = {**SMALL, **VARIATIONS[name]}
    both_ways(table, tmp_path, cached=False, floor=0.01)
    ours, _, _ = load_folder(tmp_path / "ours")
    documents_stay_apart(ours, torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(2)))


def test_it_starts_as_published(tmp_path: Path) -> None:
    starts_as_published({**SMALL, "hidden_size": 64, "pad_token_id": None}, tmp_path)


def test_files_of_the_first_age_are_read_and_what_is_no_part_of_it_is_passed_over(tmp_path: Path) -> None:
    """Norms called gamma and beta, a pooler, next-sentence prediction, the tied decoder and numbers of places."""
    published(SMALL).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    new = load_file(file)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in new.items()
    }
    old |= {
        "bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32),
        "cls.seq_relationship.weight": torch.ones(2, 32), "cls.seq_relationship.bias": torch.ones(2),
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.decoder.weight": new["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": new["cls.predictions.bias"].clone(),
    }  # fmt: skip
    tokens = torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(0))
    before = load_folder(tmp_path)[0].logits(tokens)  # type: ignore[operator]
    save_file(old, file)
    assert torch.equal(load_folder(tmp_path)[0].logits(tokens), before)  # type: ignore[operator]
    save_file(old | {"bert.extra.weight": torch.ones(2)}, file)
    with pytest.raises(UserError, match=r"model\.safetensors.*tensor bert\.extra\.weight belongs to no weight"):
        load_folder(tmp_path)


def test_a_bert_that_decodes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "is_decoder": True}))
    with pytest.raises(UserError, match="is_decoder = true is not supported"):
        read_config(tmp_path)


def bert(layers: int, width: int, heads: int, vocab: int, **more: object) -> dict[str, object]:
    return {
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": width, "initializer_range": 0.02,
        "intermediate_size": 4 * width, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 0,
        "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0", "type_vocab_size": 2,
        "use_cache": True, "vocab_size": vocab, **more,
    }  # fmt: skip


POOLER = {
    "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}  # fmt: skip
PUBLISHED = {
    "bert-base-uncased": (bert(12, 768, 12, 30522), 109_514_298),
    "bert-base-cased": (bert(12, 768, 12, 28996), 108_340_804),
    "bert-base-multilingual-cased": (bert(12, 768, 12, 119547, **POOLER), 177_974_523),
    "bert-large-uncased": (bert(24, 1024, 16, 30522), 335_174_458),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_digit(name: str, tmp_path: Path) -> None:
    table, parameters = PUBLISHED[name]
    assert count(table, tmp_path) == parameters
