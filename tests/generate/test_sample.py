"""Twin: with and without the cache the same text; draws follow the distribution they are asked to."""

import numpy as np
import pytest
import torch

from pretrain.base.extension import find
from pretrain.generate.sample import choose, sample
from pretrain.model.folder import make
from pretrain.model.weights import initialise

MUTANTS = [
    ("src/pretrain/generate/sample.py", "cache.length += fresh.shape[1]", "cache.length += 1"),
    ("src/pretrain/generate/sample.py", "p.cumsum(-1) - p < top_p", "p.cumsum(-1) < top_p"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_nothing(temperature: float) -> None:
    model = make(llama, CONFIG)
    initialise(model, llama.weights(CONFIG), 0.3, 0)
    options = {"copies": 3, "tokens": 20, "temperature": temperature, "top_p": 0.9, "seed": 4}
    with_cache = sample(model, [1, 2, 3], **options)  # type: ignore[arg-type]
    assert with_cache == sample(model, [1, 2, 3], cached=False, **options)  # type: ignore[arg-type]
    assert temperature == 0 or len({tuple(one) for one in with_cache}) == 3
    alone = sample(model, [1, 2, 3], **{**options, "copies": 1})  # type: ignore[arg-type]
    assert alone[0] == with_cache[0], "a copy's draw does not depend on how many there are"


def test_a_text_ends_at_its_end() -> None:
    model = make(llama, CONFIG)
    initialise(model, llama.weights(CONFIG), 0.3, 0)
    whole = sample(model, [1], tokens=12, temperature=0)[0]
    end = whole[3]
    assert sample(model, [1], tokens=12, temperature=0, end=end)[0] == whole[: whole.index(end) + 1]


def test_draws_follow_temperature_top_k_and_top_p() -> None:
    p = np.array([0.05, 0.5, 0.15, 0.3])
    logits = torch.tensor(np.log(p)).float().repeat(4000, 1)
    draws = (np.arange(4000) + 0.5) / 4000

    def shares(**options: float) -> np.ndarray:
        chosen = choose(logits, draws, **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options})  # type: ignore[arg-type]
        return np.bincount(chosen.numpy(), minlength=4) / 4000

    assert np.allclose(shares(), p, atol=1e-3)
    assert np.allclose(shares(temperature=0.5), p**2 / (p**2).sum(), atol=1e-3)
    assert np.allclose(shares(top_k=2), [0, 0.625, 0, 0.375], atol=1e-3)
    assert np.allclose(shares(top_p=0.6), [0, 0.625, 0, 0.375], atol=1e-3)
    assert np.allclose(shares(top_p=0.4), [0, 1, 0, 0])
    assert np.allclose(shares(temperature=0.0), [0, 1, 0, 0])
