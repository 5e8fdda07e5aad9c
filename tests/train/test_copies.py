"""Twin and ordeal: a digest is a sum of Python's whole numbers; one flipped bit on one of four ranks is named."""

import struct
from pathlib import Path

import pytest
import torch

from pretrain.base.errors import MachineError
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Corrupted, Event
from pretrain.model.weights import held, local
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.train import copies
from pretrain.train.copies import MIX, compare, digest
from ranks import ranks
from taught import section, taught, tokens

MUTANTS = [
    ("src/pretrain/train/copies.py", "words + place * MIX[0]", "words * MIX[0]"),
    ("src/pretrain/train/copies.py", "(mixed ^ mixed >> 32 & LOW) * MIX[1]", "mixed * MIX[1]"),
    ("src/pretrain/train/copies.py", "total += (mixed ^ mixed >> 32 & LOW)", "total += mixed"),
    ("src/pretrain/train/copies.py", "torch.arange(number * WORDS,", "torch.arange(0,"),
    ("src/pretrain/train/copies.py", "(parts == table[0]) & (sums", "(sums"),
    ("src/pretrain/train/copies.py", '("replicate", "fold", "tp")', '("replicate", "fold")'),
    ("src/pretrain/train/copies.py", "2 * len(most) <= len(found)", "False"),
    ("src/pretrain/train/copies.py", "one is not most", "True"),
    ("src/pretrain/train/copies.py", 'f"gradient.{name}": x.grad', 'f"gradient.{name}": x'),
]


def in_whole_numbers(x: torch.Tensor) -> int:
    """The same sum, of a tensor's bytes."""
    data = x.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    data += bytes(-len(data) % 8)
    total = 0
    for place, (word,) in enumerate(struct.iter_unpack("<q", data)):
        mixed = (word + place * MIX[0]) % 2**64
        mixed = (mixed ^ mixed >> 32) * MIX[1] % 2**64
        total += mixed ^ mixed >> 32
    return (total + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_a_digest_is_a_sum_of_whole_numbers(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "WORDS", 5)
    draw = torch.Generator().manual_seed(0)
    for shape in ((0,), (1,), (3, 7), (16, 8)):
        x = (torch.randn(shape, generator=draw) * 50).to(dtype)
        assert int(digest(x)) == in_whole_numbers(x)
        assert int(digest(x.mT if x.ndim == 2 else x)) == in_whole_numbers(x.mT if x.ndim == 2 else x)
    x = (torch.randn(65, generator=draw) * 50).to(dtype)
    assert int(digest(x[1:])) == in_whole_numbers(x[1:])


def test_every_bit_counts() -> None:
    x = torch.randn(40, generator=torch.Generator().manual_seed(1))
    bits, seen = x.view(torch.int32), {int(digest(x))}
    for place in range(40):
        for bit in range(32):
            flip(bits, place, bit)
            seen.add(int(digest(x)))
            flip(bits, place, bit)
    assert len(seen) == 1 + 40 * 32
    for place in range(1, 40):
        for bit in (0, 31):  # signs of two numbers as well
            flip(bits, 0, bit)
            flip(bits, place, bit)
            seen.add(int(digest(x)))
            flip(bits, 0, bit)
            flip(bits, place, bit)
    assert len(seen) == 1 + 40 * 32 + 39 * 2


def flip(bits: torch.Tensor, place: int, bit: int) -> None:
    bits[place] ^= -(2**31) if bit == 31 else 1 << bit


def corrupt(state: State, name: str) -> None:
    """Flips the lowest bit of the first number of a tensor."""
    kind, _, weight = name.partition(".")
    tensor = (
        held(state.model, name) if kind in ("blocks", "embed", "norm", "head") else state.optimizer.state().get(name)
    )
    if kind == "gradient":
        tensor = held(state.model, weight).grad
    assert tensor is not None
    with torch.no_grad():
        flip(local(tensor).view(-1).view(torch.int32), 0, 0)


@ranks(4)
def one_bit_on_one_rank(folder: Path) -> None:
    q, norm = "blocks.0.attention.q.weight", "blocks.0.attention_norm.weight"
    cases = [
        (Layout(replicate=4), 2, q, [2], 4),
        (Layout(replicate=4), 1, f"exp_avg_sq.{norm}", [1], 4),
        (Layout(replicate=2, tp=2), 3, norm, [3], 4),
        (Layout(replicate=2, tp=2), 3, q, [1, 3], 2),
        (Layout(replicate=2, shard=2), 0, f"gradient.{q}", [0, 2], 2),
        (Layout(shard=2, tp=2), 1, norm, [0, 1], 2),
    ]
    for number, (layout, rank, name, odd, holders) in enumerate(cases):
        on = Ranks.of(layout, "cpu")
        state, events = taught(folder, str(number), 2, section(), on=on)
        assert not any(isinstance(event, Corrupted) for event in events)
        if on.number == rank:
            corrupt(state, name)
        told: list[Event] = []
        with pytest.raises(MachineError, match=rf"rank {odd[0]} \(.* cpu\).*{name}, of which {holders} ranks"):
            compare(state, told.append)
        (found,) = told
        assert isinstance(found, Corrupted) and (found.tensors, found.ranks) == ([name], odd)
        assert found.holders == holders and len(found.places) == len(odd)


def test_one_bit_on_one_rank_is_named(tmp_path: Path) -> None:
    tokens(tmp_path)
    one_bit_on_one_rank(tmp_path)
