"""Twin: every backend equals the plain formula, forward and backward, for every mask; none builds a [seq, seq] mask."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.attention.entrance import attention
from pretrain.attention.mask import Causal, Documents, Full, Mask
from pretrain.attention.plain import plain

MUTANTS = [
    ("src/pretrain/attention/sdpa.py", ".tril(first)", ".tril(0)"),
    ("src/pretrain/attention/sdpa.py", "start += length", "start += 0"),
    ("src/pretrain/attention/plain.py", "<= q", "< q"),
]
IDS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1, 2]])
MASKS: list[Mask] = [Full(), Causal(), Documents(IDS), Documents(IDS, causal=False)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_backends_agree_with_the_formula(mask: Mask, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 9, 6), (2, kv_heads, 9, 6), (2, kv_heads, 9, 6)]
    one = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    two = [tensor.detach().clone().requires_grad_() for tensor in one]
    here, truth = attention(*one, mask=mask), plain(*two, mask, 6**-0.5, None)
    assert torch.allclose(here, truth, atol=1e-12)
    weight = torch.randn(here.shape, generator=generator, dtype=torch.float64)
    (here * weight).sum().backward()
    (truth * weight).sum().backward()
    assert all(torch.allclose(a.grad, b.grad, atol=1e-12) for a, b in zip(one, two, strict=True))


def test_the_formula_by_hand() -> None:
    q = torch.tensor([[[[1.0], [2.0]]]], dtype=torch.float64)
    v = torch.tensor([[[[10.0], [20.0]]]], dtype=torch.float64)
    out = plain(q, q, v, Causal(), 0.5, None).flatten()
    late = torch.softmax(torch.tensor([1.0, 2.0], dtype=torch.float64), 0)
    assert torch.allclose(out, torch.stack([v[0, 0, 0, 0], 10 * late[0] + 20 * late[1]]))
    capped = plain(q, q, v, Full(), 0.5, 1.0).flatten()[0]
    scores = torch.tanh(torch.tensor([0.5, 1.0], dtype=torch.float64)).softmax(0)
    assert torch.allclose(capped, 10 * scores[0] + 20 * scores[1])
    assert torch.allclose(attention(q, q, v, mask=Full(), scale=0.5, softcap=1.0).flatten()[0], capped)


@pytest.mark.parametrize("queries", [1, 3])
def test_few_queries_after_a_cache_are_the_last_ones(queries: int) -> None:
    q, k, v = torch.randn(3, 1, 2, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = attention(q, k, v, mask=Causal())
    assert torch.allclose(attention(q[:, :, -queries:], k, v, mask=Causal()), whole[:, :, -queries:], atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("documents", [False, True])
def test_memory_grows_with_the_sequence_not_its_square(documents: bool) -> None:
    largest = []
    for seq in (512, 2048):
        q = torch.randn(1, 1, seq, 8, requires_grad=True)
        mask: Mask = Documents((torch.arange(seq) // 100)[None]) if documents else Causal()
        with Largest() as seen:
            attention(q, q, q, mask=mask).sum().backward()
        largest.append(seen.elements)
    assert largest[1] <= 4 * largest[0] < 512 * 512
