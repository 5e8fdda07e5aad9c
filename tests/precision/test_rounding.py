"""Closed form and twin: chance is `base.random`'s, its mean is the number, and updates that bfloat16 loses are kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.base.random import splitmix
from pretrain.model.weights import Weight
from pretrain.precision.rounding import STRIDE, Rounding, bits, rounded

MUTANTS = [
    ("src/pretrain/precision/rounding.py", "places * _signed(STRIDE)", "places"),
    ("src/pretrain/precision/rounding.py", "(1 << (64 - by)) - 1", "-1"),
    ("src/pretrain/precision/rounding.py", "(chance & 0xFFFF)", "0x7FFF + 0 * chance"),
    ("src/pretrain/precision/rounding.py", "torch.where(x.isfinite(), near, x.to(torch.bfloat16))", "near"),
    ("src/pretrain/precision/rounding.py", 'key(self.seed, "round", step, name)', 'key(self.seed, "round", name)'),
    ("src/pretrain/precision/rounding.py", "chance >> (16 * number)", "chance"),
    ("src/pretrain/optimizer/rounded.py", "self.steps += 1", "pass"),
]
HALF_ULP = 2.0**-8  # of one, in bfloat16


@given(word=st.integers(0, 2**64 - 1), places=st.lists(st.integers(0, 2**62), min_size=1, max_size=9))
def test_bits_are_those_of_base_random(word: int, places: list[int]) -> None:
    start = splitmix(np.array([word], np.uint64))
    expected = splitmix(start + np.array(places, np.uint64) * np.uint64(STRIDE))
    assert bits(word, torch.tensor(places)).numpy().view(np.uint64).tolist() == expected.tolist()


@given(x=st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_number_goes_to_a_neighbour_and_on_average_to_itself(x: float) -> None:
    """All 65536 chances: the mean is the number itself, exactly."""
    every = torch.full((2**16,), x)
    made = rounded(every, torch.arange(2**16)).double()
    low, high = made.min(), made.max()
    assert float(made.mean()) == pytest.approx(x, rel=1e-12) and set(made.unique().tolist()) == {
        float(low),
        float(high),
    }
    if x == float(torch.tensor(x).bfloat16()):
        assert low == high == x
    else:
        near = torch.tensor(x).bfloat16().double()
        assert low < x < high and near in (low, high)


def test_what_has_no_neighbours_stays() -> None:
    odd = torch.tensor([0x7F800001, -1], dtype=torch.int32).view(torch.float32)  # NaN as well
    x = torch.cat([torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0]), odd]).repeat(999)
    made = rounded(x, bits(1, torch.arange(len(x))))
    assert torch.equal(made.isnan(), x.isnan()) and torch.equal(
        made.nan_to_num(9, 8, 7), x.bfloat16().nan_to_num(9, 8, 7)
    )


def test_the_mean_over_steps_and_places_is_the_number() -> None:
    """4 standard errors of a coin that shows `share` of 64 · 4096 times; two tensors of one weight toss apart."""
    share, places, steps = 0.3, 4096, 64
    value = torch.full((places,), 1 + share * 2 * HALF_ULP)
    ups = []
    for step in range(steps):
        pair = [torch.zeros(places, dtype=torch.bfloat16) for _ in range(2)]
        Rounding(5).store(step, "w", [(one, value) for one in pair])
        ups.append(torch.stack(pair) > 1)
    found = torch.stack(ups).double()  # [steps, 2, places]
    error = (share * (1 - share) / (places * steps)) ** 0.5
    assert bool(((found.mean((0, 2)) - share).abs() < 4 * error).all())
    both = (found[:, 0] * found[:, 1]).mean() - share**2
    assert abs(float(both)) < 4 * (share**2 * (1 - share**2) / (places * steps)) ** 0.5
    after = (found[1:] * found[:-1]).mean() - share**2
    assert abs(float(after)) < 4 * (share**2 * (1 - share**2) / (2 * places * (steps - 1))) ** 0.5


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_updates_below_half_a_step_are_not_lost(name: str) -> None:
    """A gradient that stays the same moves Adam's weights by lr a step; Muon's by their orthogonal part."""
    rate, steps = HALF_ULP / 8, 64
    kind = {"adamw": "AdamW", "muon": "Muon"}[name]
    options = {"lr": rate, "weight_decay": 0.0}
    rows = [Weight("w", "w", "embed mlp"), Weight("b", "b", "embed")]
    gradient = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        module = torch.nn.Module()
        module.register_parameter("w", torch.nn.Parameter(torch.full((64, 64), 1.5, dtype=dtype)))
        module.register_parameter("b", torch.nn.Parameter(torch.ones(2)))
        optimizer = getattr(find("optimizer.kinds", name), kind)(**options).build(module, rows)
        for _ in range(steps):
            module.get_parameter("w").grad = gradient.to(dtype).clone()
            module.get_parameter("b").grad = torch.ones(2)
            optimizer.step(1.0)
        moved[dtype] = module.get_parameter("w").detach().double() - 1.5
    wide, narrow = moved[torch.float32], moved[torch.bfloat16]
    noise = 2 * HALF_ULP * (steps * rate / (2 * HALF_ULP)) ** 0.5  # at most, of a weight: a coin a step
    assert float((narrow - wide).square().mean().sqrt()) < noise
    slope = float((narrow * wide).sum() / wide.square().sum())
    assert abs(slope - 1) < 0.1
    if name == "adamw":
        lost = torch.nn.Parameter(torch.full((64, 64), 1.5, dtype=torch.bfloat16))
        plain = torch.optim.AdamW([lost], lr=rate, weight_decay=0.0)
        for _ in range(steps):
            lost.grad = gradient.clone()
            plain.step()
        assert bool((lost == 1.5).all())  # rounding to nearest loses every step
