"""Oracle and closed form: what was known stays known in a larger vocabulary; a longer context is the published one."""

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from folders import write_folder
from pretrain.base.extension import find
from pretrain.model.extend import Grown, unlike
from pretrain.model.folder import make
from pretrain.model.layers.rope import RopeScaling
from pretrain.model.weights import export, initialise, load

MUTANTS = [
    ("src/pretrain/model/extend.py", "old.mean(0) + noise", "noise"),
    ("src/pretrain/model/extend.py", "old.mean(0) + noise", "old.mean(0)"),
    ("src/pretrain/model/extend.py", "(*weight.files, *weight.also)", "weight.files[1:]"),
    ("src/pretrain/model/extend.py", "known * new.factor < wanted", "known * new.factor < known"),
    ("src/pretrain/model/extend.py", "not in (None, known)", "not in (None, known, 64)"),
    ("src/pretrain/model/extend.py", "if wanted != known", "if wanted < known"),
    ("src/pretrain/model/extend.py", "ours.vocab_size < theirs.vocab_size", "ours.vocab_size < 0"),
    ("src/pretrain/model/extend.py", "name not in FREE and", ""),
]
llama, gpt2 = find("model.families", "llama"), find("model.families", "gpt2")
OLD, NEW = 60, 75
CONFIG = llama.Config(
    vocab_size=OLD, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, rope_theta=1e4,
)  # fmt: skip


def known(config: Any) -> Any:
    model = make(llama, config)
    initialise(model, llama.weights(config), 0.3, 0)
    return model


def extended(model: Any, config: Any, wanted: Any, seed: int = 0) -> Any:
    rows = llama.weights(wanted)
    assert unlike(llama, config, wanted) == []
    made = make(llama, wanted)
    tensors = dict(export(model, llama.weights(config), config.axes()))
    load(made, rows, wanted.axes(), Grown(tensors, rows, wanted.vocab_size, seed))
    return made


def texts(length: int = 32) -> Tensor:
    return torch.randint(OLD, (4, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied", [False, True])
def test_what_was_known_stays_known(tied: bool) -> None:
    """Hewitt's bound holds for every prediction, and new ids are told apart."""
    config = replace(CONFIG, tie_word_embeddings=tied)
    old = known(config)
    new = extended(old, config, replace(config, vocab_size=NEW))
    before, after = old.logits(texts()), new.logits(texts())
    assert (before - after[..., :OLD]).abs().max() < 1e-5
    rise = after.logsumexp(-1) - before.logsumexp(-1)
    assert rise.min() > 0 and rise.max() <= log(NEW / OLD) + 0.01
    for name in ("embed", "head"):
        rows = new.get_parameter(f"{name}.weight").detach()
        fresh, spread = rows[OLD:] - rows[:OLD].mean(0), rows[:OLD].std(0)
        assert 0.005 < (fresh / spread).std() < 0.02 and len({tuple(row) for row in fresh.tolist()}) == NEW - OLD
    again, other = (extended(old, config, replace(config, vocab_size=NEW), seed=seed) for seed in (0, 1))
    assert torch.equal(again.embed.weight, new.embed.weight) and not torch.equal(other.embed.weight, new.embed.weight)


SCALINGS = {
    "linear": RopeScaling(rope_type="linear", factor=2.0),
    "dynamic": RopeScaling(rope_type="dynamic", factor=2.0),
    "yarn": RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=32),
    "llama3": RopeScaling(factor=2.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
}


@pytest.mark.parametrize("kind", [*SCALINGS, "theta"])
def test_a_longer_context_is_the_published_one(kind: str, tmp_path: Path) -> None:
    """The same weights in transformers, under the config.json that we write: logits of a text twice as long."""
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    length = 32 if kind == "dynamic" else 64
    longer = {"rope_theta": 5e4} if kind == "theta" else {"rope_scaling": SCALINGS[kind]}
    wanted = replace(CONFIG, max_position_embeddings=length, **longer)
    old = known(CONFIG)
    new = extended(old, CONFIG, wanted)
    write_folder(tmp_path, llama, new, wanted, dtype="float32", end=None)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")(texts(64)).logits
    assert (new.logits(texts(64)) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert (new.logits(texts(64)) - old.logits(texts(64))).abs().max() > 1e-2
    weights = [dict(model.named_parameters()) for model in (old, new)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_refuses_what_does_not_fit() -> None:
    yarn = SCALINGS["yarn"]
    wrong = {
        "vocab_size 50 is less than the 60 that are there": {"vocab_size": 50},
        r"reaches 32 · 2 = 64, less than max_position_embeddings 128": {
            "max_position_embeddings": 128, "rope_scaling": yarn},
        "original_max_position_embeddings 64, but the model knows 32": {
            "max_position_embeddings": 64, "rope_scaling": replace(yarn, original_max_position_embeddings=64)},
        "grows from what is known: max_position_embeddings 64, not 32": {
            "max_position_embeddings": 64, "rope_scaling": SCALINGS["dynamic"]},
    }  # fmt: skip
    for words, change in wrong.items():
        with pytest.raises(ValueError, match=words):
            unlike(llama, CONFIG, replace(CONFIG, **change))
    assert unlike(llama, CONFIG, replace(CONFIG, intermediate_size=64, vocab_size=NEW)) == [
        "intermediate_size 48, not 64"
    ]
    stretched = replace(CONFIG, rope_scaling=yarn, max_position_embeddings=64)
    further = replace(yarn, factor=8.0)
    assert unlike(llama, stretched, replace(stretched, rope_scaling=further, max_position_embeddings=256)) == []
    small = gpt2.Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)
    assert unlike(gpt2, small, replace(small, n_positions=64)) == ["n_positions 1024, not 64"]
