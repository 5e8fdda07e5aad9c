"""Twin: FlexAttention equals the plain formula for every mask, and what it says of blocks holds for every pair.

Its backward pass has no CPU: test_device.py holds that to the formula where there is a GPU.
"""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as published

from attention.masks import MASKS, Largest
from pretrain.attention import flex as room
from pretrain.attention.flex import blocks, flex
from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window
from pretrain.attention.plain import plain, visible

MUTANTS = [
    ("src/pretrain/attention/flex.py", "torch.tanh(score / softcap)", "torch.tanh(score)"),
    ("src/pretrain/attention/flex.py", "sums.lse - sinks[:, None]", "sinks[:, None] - sums.lse"),
    ("src/pretrain/attention/flex.py", "ragged[..., -1, :] |= queries % BLOCK != 0", "pass"),
    ("src/pretrain/attention/flex.py", "ragged[..., :, -1] |= keys % BLOCK != 0", "pass"),
    ("src/pretrain/attention/flex.py", "some & (q[0] - k[1] <= before)", "some & (q[1] - k[1] <= before)"),
    ("src/pretrain/attention/flex.py", "whole & (k[1] - q[0] <= after)", "whole & (k[0] - q[0] <= after)"),
    ("src/pretrain/attention/flex.py", "whole & (a == b) & (b == c) & (c == d)", "whole & (a == b) & (b == c)"),
    ("src/pretrain/attention/flex.py", "some & (a <= d) & (c <= b)", "some & (a <= c) & (c <= b)"),
    ("src/pretrain/attention/flex.py", "(k[1] <= q[0]) | (k[1] < lengths)", "(k[1] <= q[0]) | (k[0] < lengths)"),
    ("src/pretrain/attention/flex.py", "(key <= query + first) | (key < lengths[row])", "(key <= query + first)"),
    ("src/pretrain/attention/flex.py", "ids[row, query + first] == ids[row, key]\n        return",
     "ids[row, query] == ids[row, key] + 1\n        return"),
    ("src/pretrain/attention/flex.py", "(query + first - key <= before)", "(query + first - key < before)"),
    ("src/pretrain/attention/flex.py", "key: key <= query + first", "key: key < query + first"),
]  # fmt: skip


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch's own unfused path takes the rule of pairs and no blocks: seconds of compiling less for each mask."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(published, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    yield


def differs(name: str, softcap: float | None, with_sinks: bool, queries: int = 9) -> float:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 9, 16, generator=generator)[:, :, -queries:]
    k, v = torch.randn(2, 2, 2, 9, 16, generator=generator)
    sinks = torch.randn(4, generator=generator) if with_sinks else None
    mask = MASKS[name]
    with torch.no_grad():
        here = flex(q, k, v, mask, 0.3, softcap, sinks)
        there = plain(q.double(), k.double(), v.double(), mask, 0.3, softcap, sinks)
    return float((here - there).abs().max())


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_it_agrees_with_the_formula(name: str, softcap: float | None, with_sinks: bool, uncompiled: None) -> None:
    assert differs(name, softcap, with_sinks) < 1e-6


@pytest.mark.parametrize("name", ["causal", "sliding", "documents", "prefix"])
def test_few_queries_are_the_last_ones(name: str, uncompiled: None) -> None:
    assert differs(name, None, False, queries=4) < 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it compiles
def test_compiled_it_is_the_same() -> None:
    """Once, since every mask is compiled anew; without sinks, whose sum of weights no CPU kernel gives."""
    try:
        difference = differs("documents, sliding", 1.5, False)
    except Exception as error:
        if "compiler" in str(error).lower():
            pytest.skip(f"nothing compiles here: {error}")
        raise
    assert difference < 1e-6


def listed(count: Tensor, order: Tensor) -> Tensor:
    """Which blocks are named, bool [row, query blocks, key blocks]."""
    named = torch.arange(order.shape[-1]) < count[..., None]
    return torch.zeros(order.shape, dtype=torch.bool).scatter(-1, order.long(), named)[:, 0]


def held_to_pairs(mask: Mask, queries: int, keys: int) -> None:
    """Blocks said to be seen whole are, those in part are looked at pair by pair, all others hold nothing."""
    made, size = blocks(mask, queries, keys, torch.device("cpu")), room.BLOCK
    dense = visible(mask, queries, keys, torch.device("cpu"))
    dense = torch.ones(1, 1, queries, keys, dtype=torch.bool) if dense is None else dense
    dense = dense.reshape(-1, queries, keys)
    assert made.full_kv_num_blocks is not None and made.full_kv_indices is not None
    part = listed(made.kv_num_blocks, made.kv_indices)
    whole = listed(made.full_kv_num_blocks, made.full_kv_indices)
    assert not (part & whole).any() and len(part) == len(dense)
    assert not (queries % size and whole[:, -1].any()) and not (keys % size and whole[:, :, -1].any())
    part, whole = (
        one.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :queries, :keys] for one in (part, whole)
    )
    assert dense[whole].all() and not dense[~(part | whole)].any()
    rows, q, k = torch.meshgrid(*map(torch.arange, dense.shape), indexing="ij")
    assert torch.equal(made.mask_mod(rows, torch.zeros(()), q, k).expand_as(dense), dense)


@pytest.mark.parametrize("name", MASKS)
def test_blocks_of_every_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK", 2)
    for queries in (9, 4, 8):
        held_to_pairs(MASKS[name], queries, 9)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 9), st.integers(0, 9), st.integers(1, 5),
    st.sampled_from(["causal", "full", "window", "prefix"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_blocks_hold_for_every_pair(lengths: list[int], before: int, after: int, size: int, kind: str) -> None:
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seq = len(ids)
    two = torch.stack([ids, torch.arange(seq) // (before + 1)])
    masks: list[Mask] = {
        "causal": [Causal(), Documents(two), Documents(two, window=Window(before))],
        "full": [Full(), Documents(two, causal=False)],
        "window": [Window(before, after), Documents(two, causal=False, window=Window(before, after))],
        "prefix": [Prefix(torch.tensor([min(before, seq), min(after, seq)]))],
    }[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "BLOCK", size)
        for mask in masks:
            held_to_pairs(mask, seq, seq)


@pytest.mark.parametrize("kind", ["causal", "sliding", "documents", "prefix"])
def test_no_mask_of_pairs_is_made(kind: str) -> None:
    """At 8,192 tokens, 64 blocks, nothing is larger than the 4,096 pairs of blocks, or the tokens."""
    seq = 8192
    mask: Mask = {
        "causal": Causal(), "sliding": Window(127), "documents": Documents((torch.arange(seq) // 100)[None]),
        "prefix": Prefix(torch.tensor([seq // 2])),
    }[kind]  # fmt: skip
    with Largest() as seen:
        blocks(mask, seq, seq, torch.device("cpu"))
    assert seen.elements <= seq
