"""Twin: every backend equals the plain formula, forward and backward, for every mask; none builds a [seq, seq] mask."""

import pytest
import torch

from attention.masks import IDS, MASKS, Largest
from pretrain.attention import sdpa
from pretrain.attention.entrance import attention
from pretrain.attention.mask import Causal, Documents, Full, Mask, Prefix, Window, narrow
from pretrain.attention.plain import plain
from pretrain.train.recompute import measured

MUTANTS = [
    ("src/pretrain/attention/plain.py", "seen & (q - k <= before)", "seen & (q - k < before)"),
    ("src/pretrain/attention/plain.py", "seen & (k - q <= after)", "seen & (k - q < after)"),
    ("src/pretrain/attention/plain.py", "(k < mask.lengths[:", "(k <= mask.lengths[:"),
    ("src/pretrain/attention/plain.py", "softcap * torch.tanh(scores / softcap)", "softcap * torch.tanh(scores)"),
    ("src/pretrain/attention/sdpa.py", "max(place - before, 0)", "max(place - before + 1, 0)"),
    ("src/pretrain/attention/sdpa.py", "place + block.shape[2] + after", "place + block.shape[2]"),
    ("src/pretrain/attention/sdpa.py", "self.sinks / self.scale", "self.sinks"),
    ("src/pretrain/attention/sdpa.py", "late * (two - sums)", "late * (one - sums)"),
    ("src/pretrain/attention/sdpa.py", "            first += 1\n", ""),
    ("src/pretrain/attention/sdpa.py", "return q1 + q2, ", "return q1, "),
    ("src/pretrain/attention/sdpa.py", "pad(seen, (1, 0), value=True)", "pad(seen, (1, 0), value=False)"),
    ("src/pretrain/attention/sdpa.py", "q = pad(q, (0, 0, 1, 0)) if causal else q", "q = q"),
    ("src/pretrain/attention/mask.py", "first = sum(lengths) - count", "first = 0"),
    ("src/pretrain/attention/mask.py", "Window(window.before) if mask.causal else window", "window"),
]  # fmt: skip


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one, two, atol=1e-12)


@pytest.fixture(params=[256, 4])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One block of queries, and several."""
    monkeypatch.setattr(sdpa, "BLOCK", request.param)
    return request.param


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_the_entrance_agrees_with_the_formula(name: str, softcap: float | None, with_sinks: bool, block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = MASKS[name]
    for kv_heads, values in ((1, 6), (2, 5), (4, 6)):
        shapes = [(2, 4, 9, 6), (2, kv_heads, 9, 6), (2, kv_heads, 9, values), (4,)]
        one = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
        two = [tensor.detach().clone().requires_grad_() for tensor in one]
        here = attention(*one[:3], mask=mask, softcap=softcap, sinks=one[3] if with_sinks else None)
        there = plain(*two[:3], mask, 6**-0.5, softcap, two[3] if with_sinks else None)
        assert close(here, there)
        weight = torch.randn(here.shape, generator=generator, dtype=torch.float64)
        (here * weight).sum().backward()
        (there * weight).sum().backward()
        for a, b in zip(one[: 3 + with_sinks], two, strict=False):
            assert a.grad is not None and b.grad is not None and close(a.grad, b.grad)


def test_the_formula_by_hand() -> None:
    q = torch.tensor([[[[1.0], [2.0]]]], dtype=torch.float64)
    v = torch.tensor([[[[10.0], [20.0]]]], dtype=torch.float64)
    out = plain(q, q, v, Causal(), 0.5).flatten()
    late = torch.softmax(torch.tensor([1.0, 2.0], dtype=torch.float64), 0)
    assert close(out, torch.stack([v[0, 0, 0, 0], 10 * late[0] + 20 * late[1]]))
    capped = plain(q, q, v, Full(), 0.5, 2.0).flatten()[0]
    scores = (2 * torch.tanh(torch.tensor([0.25, 0.5], dtype=torch.float64))).softmax(0)
    assert close(capped, 10 * scores[0] + 20 * scores[1])
    sunk = plain(q, q, v, Full(), 0.5, None, torch.tensor([3.0], dtype=torch.float64)).flatten()[0]
    shares = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64).softmax(0)
    assert close(sunk, 10 * shares[0] + 20 * shares[1])


def test_windows_by_hand() -> None:
    """The mean of what is seen, by equal scores."""
    v = torch.arange(5.0).double()[None, None, :, None]
    q = torch.zeros_like(v)
    assert plain(q, q, v, Window(1), 1.0).flatten().tolist() == [0, 0.5, 1.5, 2.5, 3.5]
    assert plain(q, q, v, Window(1, 1), 1.0).flatten().tolist() == [0.5, 1, 2, 3, 3.5]
    assert plain(q, q, v, Prefix(torch.tensor([3])), 1.0).flatten().tolist() == [1, 1, 1, 1.5, 2]


def test_a_layer_narrows_what_all_see() -> None:
    assert narrow(Causal(), Window(3, 2)) == Window(3) and narrow(Full(), Window(3, 2)) == Window(3, 2)
    assert narrow(Causal(), None) == Causal()
    for causal, expected in ((True, Window(3)), (False, Window(3, 2))):
        inside = narrow(Documents(IDS, causal), Window(3, 2))
        assert isinstance(inside, Documents) and inside.inside == expected
    with pytest.raises(ValueError, match="not defined"):
        narrow(Prefix(torch.tensor([1])), Window(3))


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("mask", [Causal(), Window(2), Documents(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]]))])
def test_few_queries_after_a_cache_are_the_last_ones(queries: int, mask: Mask, block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for kv_heads, values, with_sinks in ((4, 4, False), (2, 3, True), (2, 6, False)):
        shapes = [(1, 4, 8, 4), (1, kv_heads, 8, 4), (1, kv_heads, 8, values), (4,)]
        one = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
        two = [tensor.detach().clone().requires_grad_() for tensor in one]
        sinks = (one[3], two[3]) if with_sinks else (None, None)
        here = attention(one[0][:, :, -queries:], *one[1:3], mask=mask, sinks=sinks[0])
        there = plain(*two[:3], mask, 0.5, None, sinks[1])[:, :, -queries:]
        assert close(here, there)
        weight = torch.randn(there.shape, generator=generator, dtype=torch.float64)
        (here * weight).sum().backward()
        (there * weight).sum().backward()
        for a, b in zip(one[: 3 + with_sinks], two, strict=False):
            assert a.grad is not None and b.grad is not None and close(a.grad, b.grad)


@pytest.mark.parametrize("more", ["", "sinks"])
def test_memory_of_a_part_grows_with_the_sequence(more: str) -> None:
    kept = []
    for seq in (1024, 4096):
        q, k = (torch.randn(1, 2, n, 8, requires_grad=True) for n in (seq // 2, seq))
        sinks = torch.zeros(2, requires_grad=True) if more else None
        kept.append(
            measured(torch.nn.Identity(), lambda q, k, s: attention(q, k, k, mask=Causal(), sinks=s), q, k, sinks)
        )
    assert kept[1] <= 4.1 * kept[0]


@pytest.mark.parametrize("kind", ["causal", "full", "sliding", "two-sided", "documents", "prefix"])
@pytest.mark.parametrize("more", ["", "sinks", "soft cap", "groups", "narrow values"])
def test_memory_grows_with_the_sequence_not_its_square(kind: str, more: str) -> None:
    largest = []
    for seq in (1024, 4096):
        mask: Mask = {
            "causal": Causal(), "full": Full(), "sliding": Window(127), "two-sided": Window(64, 64),
            "documents": Documents((torch.arange(seq) // 100)[None]), "prefix": Prefix(torch.tensor([seq // 2])),
        }[kind]  # fmt: skip
        q = torch.randn(1, 2, seq, 8, requires_grad=True)
        k = torch.randn(1, 1 if more == "groups" else 2, seq, 8, requires_grad=True)
        sinks = torch.zeros(2, requires_grad=True) if more == "sinks" else None
        softcap = 5.0 if more == "soft cap" else None
        with Largest() as seen:
            v = k[..., :4] if more == "narrow values" else k
            attention(q, k, v, mask=mask, sinks=sinks, softcap=softcap).sum().backward()
        largest.append(seen.elements)
    assert largest[1] <= 4.1 * largest[0] and largest[1] < 4096 * 4096 / 4, largest
