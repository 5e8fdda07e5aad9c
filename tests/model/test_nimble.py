"""Closed form and twin: nimble starts as a uniform guess, learns, and comes back from its folder."""

from pathlib import Path

import numpy as np
import torch

from pretrain.base.extension import find
from pretrain.model.folder import load_folder, make, write_folder
from pretrain.model.weights import initialise, parameters

nimble = find("model.families", "nimble")
CONFIG = nimble.Config(
    vocab_size=65, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4
)  # fmt: skip
TOKENS = torch.randint(0, 65, (2, 20), generator=torch.Generator().manual_seed(0))


def test_it_starts_as_a_uniform_guess_of_the_counted_size(tmp_path: Path) -> None:
    model = make(nimble, CONFIG)
    initialise(model, nimble.weights(CONFIG), 0.02, 0)
    assert not model.logits(TOKENS).any()  # type: ignore[operator]
    assert parameters(nimble.weights(CONFIG), CONFIG.axes()) == 2 * 65 * 128 + 4 * 12 * 128**2
    assert sum(p.numel() for p in model.parameters()) == 2 * 65 * 128 + 4 * 12 * 128**2


def test_a_later_token_changes_nothing_before_it_and_the_folder_comes_back(tmp_path: Path) -> None:
    model = make(nimble, CONFIG)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    logits = model.logits(TOKENS)  # type: ignore[operator]
    changed = TOKENS.clone()
    changed[:, 10:] = 3
    other = model.logits(changed)  # type: ignore[operator]
    assert torch.allclose(logits[:, :10], other[:, :10], atol=1e-5) and not torch.allclose(
        logits[:, 10:], other[:, 10:]
    )
    write_folder(tmp_path, nimble, model, CONFIG, dtype="float32", end=None)
    back, _, config = load_folder(tmp_path)
    assert config == CONFIG and np.array_equal(back.logits(TOKENS).detach(), logits.detach())  # type: ignore[operator]
