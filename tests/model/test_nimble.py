"""Closed form and twin: nimble starts as a uniform guess, learns, and comes back from its folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from folders import write_folder
from pretrain.base.extension import find
from pretrain.generate.cache import KeyValueCache
from pretrain.model.count import training_flops_per_token
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import initialise, parameters

nimble = find("model.families", "nimble")
CONFIG = nimble.Config(
    vocab_size=65, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4
)  # fmt: skip
GRAMS = replace(CONFIG, gram_buckets=100)
TOKENS = torch.randint(0, 65, (2, 20), generator=torch.Generator().manual_seed(0))


def filled(config: object) -> torch.nn.Module:
    """A model whose every weight is drawn."""
    model = make(nimble, config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def test_it_starts_as_a_uniform_guess_of_the_counted_size(tmp_path: Path) -> None:
    model = make(nimble, CONFIG)
    initialise(model, nimble.weights(CONFIG), 0.02, 0)
    assert not model.logits(TOKENS).any()  # type: ignore[operator]
    assert parameters(nimble.weights(CONFIG), CONFIG.axes()) == 2 * 65 * 128 + 4 * 12 * 128**2
    assert sum(p.numel() for p in model.parameters()) == 2 * 65 * 128 + 4 * 12 * 128**2


@pytest.mark.parametrize("config", [CONFIG, GRAMS])
def test_a_later_token_changes_nothing_before_it_and_the_folder_comes_back(tmp_path: Path, config: object) -> None:
    model = filled(config)
    logits = model.logits(TOKENS)  # type: ignore[operator]
    changed = TOKENS.clone()
    changed[:, 10:] = 3
    other = model.logits(changed)  # type: ignore[operator]
    assert torch.allclose(logits[:, :10], other[:, :10], atol=1e-5) and not torch.allclose(
        logits[:, 10:], other[:, 10:]
    )
    write_folder(tmp_path, nimble, model, config, dtype="float32", end=None)
    back, _, read = load_folder(tmp_path)
    assert read == config and np.array_equal(back.logits(TOKENS).detach(), logits.detach())  # type: ignore[operator]


def test_the_embedding_of_grams_is_that_of_the_last_two_and_three_tokens() -> None:
    """A twin in Python integers."""
    model = filled(GRAMS)
    grams = model.blocks[0].grams  # type: ignore[index, union-attr]
    found: list[torch.Tensor] = []
    grams.register_forward_hook(lambda module, arguments, out: found.append(out))  # type: ignore[operator]
    model.logits(TOKENS)  # type: ignore[operator]
    for row in range(2):
        old = [0, 0, *TOKENS[row].tolist()]
        for place in range(20):
            third, second, last = old[place : place + 3]
            pair = last * 65 + second
            rows = [gram * 2654435761 % 2**32 * 100 // 2**32 for gram in (pair, pair * 65 + third)]
            expected = grams.pairs.weight[rows[0]] + grams.triples.weight[rows[1]]  # type: ignore[union-attr, index]
            assert torch.equal(found[0][row, place], expected)


def test_grams_stay_in_their_document_and_the_cache_knows_them() -> None:
    model = filled(GRAMS)
    ids = torch.tensor([[0] * 7 + [1] + [2] * 12, [0] * 20])
    positions = torch.tensor([[*range(7), 0, *range(12)], [*range(20)]])
    packed = model(TOKENS, positions=positions, documents=ids).hidden
    assert torch.allclose(packed[:1, 8:], model(TOKENS[:1, 8:]).hidden, atol=1e-5)
    cache = KeyValueCache()
    parts = []
    for part in TOKENS.split([5, 1, 1, 13], 1):
        parts.append(model(part, cache=cache).hidden)
        cache.length += part.shape[1]
    assert torch.allclose(torch.cat(parts, 1), model(TOKENS).hidden, atol=1e-5)


def test_lookups_cost_no_arithmetic() -> None:
    plain, grams = (training_flops_per_token(nimble.weights(c), c.axes(), 4, 64) for c in (CONFIG, GRAMS))
    assert plain == grams == 6 * (4 * 12 * 128**2 + 65 * 128) + 6 * 4 * 128 * 64
