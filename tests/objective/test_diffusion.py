"""Closed form: levels are uniform, tokens are hidden at their level, and the weighted loss is the bound's estimate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from batches import MASK, VOCABULARY, batch, chi_square, padded
from pretrain.base.errors import UserError
from pretrain.objective.cross_entropy import Loss, cross_entropy
from pretrain.objective.kinds.diffusion import Diffusion
from pretrain.objective.objective import Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary

MUTANTS = [
    ("src/pretrain/objective/kinds/diffusion.py", "batch.tokens) & (own > 0)", "batch.tokens)"),
    ("src/pretrain/objective/kinds/diffusion.py", "np.where(hidden, 1 / level, 0)", "np.where(hidden, 1, 0)"),
    (
        "src/pretrain/objective/kinds/diffusion.py",
        '"diffusion.hide", batch.tokens.shape[1:]) < level)',
        '"diffusion.hide", batch.tokens.shape[1:]) < 0.5)',
    ),
    ("src/pretrain/objective/kinds/diffusion.py", "~vocabulary.is_special(batch.tokens) & (own > 0)", "(own > 0)"),
    (
        "src/pretrain/objective/kinds/diffusion.py",
        "np.where(text, batch.tokens, IGNORE)",
        "np.where(hidden, batch.tokens, IGNORE)",
    ),
    ("src/pretrain/objective/kinds/diffusion.py", "weights=own", "weights=batch.weights"),
    (
        "src/pretrain/objective/kinds/diffusion.py",
        "given.weights[given.targets != IGNORE].sum()",
        "given.weights.sum()",
    ),
    ("src/pretrain/objective/kinds/diffusion.py", "* GOLDEN >>", "* np.uint64(2**62 + 1) >>"),
    ("src/pretrain/objective/kinds/diffusion.py", "self.least + (1 - self.least) *", "self.least +"),
]


def hidden_share(made: Batch) -> np.ndarray:
    return (made.tokens == MASK).sum(1) / (made.targets != IGNORE).sum(1)


@pytest.mark.parametrize("even", [False, True])
def test_levels_are_uniform_and_tokens_are_hidden_at_them(even: bool) -> None:
    every = batch(4000, 64, seed=5)
    made = Diffusion(even=even).prepare(every, VOCABULARY)
    hidden, ordinary = made.tokens == MASK, every.tokens < 32
    assert np.array_equal(hidden, made.extra["scale"] > 0) and not (hidden & ~ordinary).any()
    assert np.array_equal(made.targets, np.where(ordinary, every.tokens, IGNORE))
    level = np.where(hidden.any(1), 1 / np.maximum(made.extra["scale"].max(1), 1), np.nan)
    count = np.bincount((np.nan_to_num(level) * 20).astype(int).clip(0, 19), minlength=20)
    assert abs(chi_square(count, 200)) < 4 if not even else np.abs(count - 200).max() < 12
    deviation = (hidden.sum(1) - level * ordinary.sum(1)) / np.sqrt(level * (1 - level) * ordinary.sum(1))
    middle = (level > 0.1) & (level < 0.9)
    assert abs((deviation[middle] ** 2).mean() - 1) < 4 * (2 / middle.sum()) ** 0.5
    assert abs(deviation[middle].mean()) < 4 / middle.sum() ** 0.5


def test_even_levels_spread_over_neighbours_alone() -> None:
    """Any 16 neighbours leave no gap of 2 / 16 (three distances: Steinhaus), wherever the run stands."""
    for first in (0, 1000, 10**12):
        rows = np.arange(first, first + 16)
        levels = np.sort(Diffusion(even=True)._levels(replace(batch(16, 4), rows=rows)))
        assert np.diff(levels, append=levels[0] + 1).max() < 2 / 16


def test_padding_is_neither_hidden_nor_counted() -> None:
    every = padded(8, 40)
    made = Diffusion(least=0.9).prepare(every, VOCABULARY)
    assert np.array_equal(made.tokens[:, 30:], every.tokens[:, 30:]) and (made.targets[:, 30:] == IGNORE).all()
    assert (made.tokens[:, :28] == MASK).any()


def given_by(made: Batch, hidden: torch.Tensor) -> Given:
    targets, weights = torch.from_numpy(made.targets), torch.from_numpy(made.weights)
    return Given(hidden, (), targets, weights, {"scale": torch.from_numpy(made.extra["scale"])})


def test_the_loss_is_the_published_formula() -> None:
    """LLaDA's: the sum over hidden tokens of -log p / t, over all tokens."""
    every = replace(batch(8, 20), weights=np.ones((8, 20), np.float32))
    made = Diffusion().prepare(every, VOCABULARY)
    head, hidden = nn.Linear(8, 40, bias=False), torch.randn(8, 20, 8)

    def cost(hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Loss:
        return cross_entropy(hidden, head, targets, weights)

    (loss,) = Diffusion().loss(given_by(made, hidden), cost).values()
    logp, total = head(hidden).detach().log_softmax(-1), 0.0
    for i in range(8):
        t = 1 / made.extra["scale"][i].max() if made.extra["scale"][i].any() else 1.0
        total -= sum(float(logp[i, j, every.tokens[i, j]]) / t for j in np.flatnonzero(made.tokens[i] == MASK))
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert loss.count == (every.tokens < 32).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_of_frequencies_alone_costs_what_it_costs_without_noise(weighted: bool) -> None:
    """Where a prediction does not look at its input, the expected loss is the plain cross-entropy, exactly."""
    every = batch(6000, 32, seed=2)
    every = every if weighted else replace(every, weights=np.ones(every.tokens.shape, np.float32))
    made = Diffusion(least=0.05).prepare(every, VOCABULARY)
    p = torch.softmax(torch.randn(32, generator=torch.Generator().manual_seed(0)), 0)
    costs = np.append(-p.log().numpy(), np.zeros(9))[np.where(made.targets == IGNORE, 39, made.targets)]
    exact = (costs * made.weights).sum(1)
    noisy = (costs * made.weights * made.extra["scale"]).sum(1)
    assert abs((noisy - exact).mean()) < 4 * (noisy - exact).std() / 6000**0.5
    inside = every.documents[:, 1:] == every.documents[:, :-1]
    assert np.array_equal(made.weights[:, 1:][inside], every.weights[:, :-1][inside])


def test_no_split_changes_what_is_hidden_and_mistakes_are_said() -> None:
    every = batch(12, 16)
    made = Diffusion(even=True).prepare(every, VOCABULARY)
    assert np.array_equal(Diffusion(even=True).prepare(every.part(5, 9), VOCABULARY).tokens, made.tokens[5:9])
    assert np.array_equal(made.part(5, 9).extra["scale"], made.extra["scale"][5:9])
    with pytest.raises(UserError, match="no mask token"):
        Diffusion().prepare(every, Vocabulary(40))
    with pytest.raises(ValueError, match="above 0"):
        Diffusion(least=0.0)
