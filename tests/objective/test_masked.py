"""Closed form and property: who is masked and by what, exact counts of it, whatever the split into ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from batches import MASK, VOCABULARY, batch, chi_square, padded, weight
from pretrain.base.errors import UserError
from pretrain.objective.cross_entropy import Loss, cross_entropy
from pretrain.objective.kinds.masked import Masked, word_starts
from pretrain.objective.objective import Given
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.order.vocabulary import vocabulary
from pretrain.tokenizer.bpe import train

MUTANTS = [
    ("src/pretrain/objective/kinds/masked.py", "& (own > 0)", ""),
    ("src/pretrain/objective/kinds/masked.py", "pick < self.rate", "pick > self.rate"),
    ("src/pretrain/objective/kinds/masked.py", "kind < self.hidden)]", "kind < self.hidden - 0.02)]"),
    ("src/pretrain/objective/kinds/masked.py", "kind < self.hidden + self.replaced)", "kind < self.hidden + 0.05)"),
    ("src/pretrain/objective/kinds/masked.py", "& ~vocabulary.is_special(batch.tokens)", ""),
    (
        "src/pretrain/objective/kinds/masked.py",
        "np.where(chosen, batch.tokens, IGNORE)",
        "np.where(tokens != batch.tokens, batch.tokens, IGNORE)",
    ),
    ("src/pretrain/objective/kinds/masked.py", "weights=own", "weights=batch.weights"),
    (
        "src/pretrain/objective/kinds/masked.py",
        "vocabulary.ordinary(other[swap])",
        "vocabulary.ordinary(other[swap] / 2)",
    ),
    ("src/pretrain/objective/kinds/masked.py", "& right[batch.tokens[:, :-1]]", ""),
    ("src/pretrain/objective/kinds/masked.py", "& same)", ")"),
    ("src/pretrain/order/batch.py", "own[:, 1:][same] = weights[:, :-1][same]", "own[:, 1:] = weights[:, :-1]"),
]
BIG = batch(256, 128)
ORDINARY = BIG.tokens < 32


@pytest.mark.parametrize("objective", [Masked(), Masked(rate=0.3), Masked(rate=0.4, hidden=0.5, replaced=0.3)])
def test_shares_are_as_said(objective: Masked) -> None:
    made = objective.prepare(BIG, VOCABULARY)
    chosen = made.targets != IGNORE
    assert not (chosen & ~ORDINARY).any() and np.array_equal(made.targets[chosen], BIG.tokens[chosen])
    assert np.array_equal(made.tokens[~chosen], BIG.tokens[~chosen])
    n, k = ORDINARY.sum(), chosen.sum()
    assert chi_square(np.array([k, n - k]), n * np.array([objective.rate, 1 - objective.rate])) < 4
    by_place = np.array([chosen[:, i].sum() / ORDINARY[:, i].sum() for i in range(128)])
    spread = objective.rate * (1 - objective.rate) / ORDINARY.sum(0)
    assert abs((((by_place - objective.rate) ** 2) / spread).mean() - 1) < 4 * (2 / 128) ** 0.5
    masked, kept = chosen & (made.tokens == MASK), chosen & (made.tokens == BIG.tokens)
    kept_share = 1 - objective.hidden - objective.replaced
    shares = np.array([objective.hidden, objective.replaced * 31 / 32, kept_share + objective.replaced / 32])
    found = np.array([masked.sum(), (chosen & ~masked & ~kept).sum(), kept.sum()])
    assert chi_square(found, k * shares) < 4
    swapped = made.tokens[chosen & ~masked & ~kept]
    assert swapped.max() < 32 and chi_square(np.bincount(swapped, minlength=32), len(swapped) / 32) < 4


@given(st.integers(1, 7), st.integers(0, 1), st.booleans())
def test_no_split_changes_a_mask(ranks: int, seed: int, whole: bool) -> None:
    every = batch(12, 16, seed=seed)
    objective, known = Masked(rate=0.4, whole_words=whole), joined()
    made = objective.prepare(every, known)
    for rank in range(ranks):
        mine = {
            name: getattr(every, name)[rank::ranks] for name in ("tokens", "targets", "weights", "documents", "rows")
        }
        part = objective.prepare(Batch(**mine, positions=every.positions[rank::ranks], seed=every.seed), known)
        assert np.array_equal(part.tokens, made.tokens[rank::ranks])
        assert np.array_equal(part.targets, made.targets[rank::ranks])
    later = objective.prepare(batch(12, 16, seed=seed + 2), known)
    assert not np.array_equal(later.targets == IGNORE, made.targets == IGNORE)


def joined() -> Vocabulary:
    joins = np.zeros((2, VOCABULARY.size), bool)
    joins[0, 8:32], joins[1, 4:32] = True, True  # 0 to 3 are spaces, 4 to 7 begin words
    return Vocabulary(**{**vars_of(VOCABULARY), "joins": joins})


def vars_of(known: Vocabulary) -> dict:
    return {name: getattr(known, name) for name in ("size", "end", "mask", "specials", "fim")}


def test_another_epoch_has_another_mask() -> None:
    """The same tokens at other positions of the run, as RoBERTa's dynamic masking has it."""
    first = batch(64, 64)
    second = Batch(**{**{n: getattr(first, n) for n in Batch.__dataclass_fields__}, "rows": first.rows + 1000})
    a, b = (Masked().prepare(one, VOCABULARY).targets != IGNORE for one in (first, second))
    both, ordinary = (a & b).sum(), (first.tokens < 32).sum()
    assert abs(both - ordinary * 0.15**2) < 4 * (ordinary * 0.15**2) ** 0.5


def test_a_word_is_masked_whole_and_words_are_as_many_as_said() -> None:
    every = batch(256, 128, mean=50)
    bounds = np.random.Generator(np.random.Philox(1)).random(every.tokens.shape) < 0.05  # some where no end stands
    every = replace(every, documents=np.cumsum(bounds, 1).astype(np.int32))
    made = Masked(rate=0.25, whole_words=True).prepare(every, joined())
    chosen = made.targets != IGNORE
    words = twin(every, joined())
    starts = word_starts(every, joined())
    assert np.array_equal(starts, words)
    alone = [chosen[i, words[i] == place] for i in range(256) for place in np.unique(words[i][every.tokens[i] < 32])]
    assert all(one.all() or not one.any() for one in alone) and max(map(len, alone)) > 3
    k = sum(one.all() for one in alone)
    assert chi_square(np.array([k, len(alone) - k]), len(alone) * np.array([0.25, 0.75])) < 4


def twin(every: Batch, known: Vocabulary) -> np.ndarray:
    """Where each token's word begins, token by token."""
    assert known.joins is not None
    out = np.zeros(every.tokens.shape, np.int64)
    for i, row in enumerate(every.tokens):
        for j in range(1, len(row)):
            same = every.documents[i, j] == every.documents[i, j - 1]
            goes_on = same and known.joins[0, row[j]] and known.joins[1, row[j - 1]]
            out[i, j] = out[i, j - 1] if goes_on else j
    return out


def test_padding_is_not_chosen() -> None:
    every = padded(8, 40)
    made = Masked(rate=1.0).prepare(every, VOCABULARY)
    assert np.array_equal(made.tokens[:, 30:], every.tokens[:, 30:]) and (made.targets[:, 30:] == IGNORE).all()
    assert (made.targets[:, :30] != IGNORE).sum() == (every.tokens[:, :30] < 32).sum()


def test_weights_are_those_of_the_tokens_themselves() -> None:
    made = Masked().prepare(BIG, VOCABULARY)
    chosen = made.targets != IGNORE
    inside = np.pad(BIG.documents[:, 1:] == BIG.documents[:, :-1], ((0, 0), (1, 0)))
    assert np.array_equal(made.weights[chosen & inside], weight(BIG.tokens)[chosen & inside])
    assert np.array_equal(made.weights[~inside], BIG.weights[~inside])


def test_the_loss_is_the_plain_one() -> None:
    made = Masked(rate=0.4).prepare(batch(3, 20), VOCABULARY)
    hidden, head = torch.randn(3, 20, 8, dtype=torch.float64), nn.Linear(8, 40, bias=False, dtype=torch.float64)
    targets, weights = torch.from_numpy(made.targets), torch.from_numpy(made.weights)

    def cost(hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Loss:
        return cross_entropy(hidden, head, targets, weights)

    (loss,) = Masked().loss(Given(hidden, (), targets, weights, {}), cost).values()
    plain = functional.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), reduction="none")
    assert torch.allclose(loss.total, (plain * weights.flatten())[targets.flatten() != IGNORE].sum())
    assert loss.count == weights[targets != IGNORE].sum()


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match="no mask token"):
        Masked().prepare(BIG, Vocabulary(40))
    with pytest.raises(ValueError, match="1 together"):
        Masked(hidden=0.8, replaced=0.3)


def test_words_of_a_real_tokenizer() -> None:
    made = train(["the cat, the hat and the bat\n" * 9, "(a_b1 - x)" * 5], 256 + 16 + 20, reserved=20)
    known, ids = vocabulary(made), made.encode("the hat (a_b1 bats)").astype(np.int64)[None]
    zeros = np.zeros(ids.shape, np.int32)
    one = Batch(ids, ids, zeros, zeros, np.arange(1), zeros[..., None])
    starts = word_starts(one, known)[0]
    words = ["".join(made.decode([i]) for i in ids[0][starts == s]) for s in np.unique(starts)]
    assert [word.strip() for word in words if word.strip()] == ["the", "hat", "(", "a_b1", "bats", ")"]
