"""Twin, on a GPU: each backend's output and gradients equal the plain formula's in float64, and memory grows with the
sequence. `pytest tests/attention/test_device.py` on a machine that has one; FlashAttention where it is installed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attention.masks import MASKS
from pretrain.attention import flash as flash_room
from pretrain.attention.flash import flash
from pretrain.attention.flex import flex
from pretrain.attention.mask import Causal, Documents, Mask, Prefix, Window
from pretrain.attention.plain import plain
from pretrain.attention.sdpa import sdpa

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: FlexAttention has no backward on a CPU"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, while it compiles
]
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of the largest number


def kernels() -> dict[str, Callable[..., Tensor]]:
    return {"sdpa": sdpa, "flex": flex, "flash": lambda q, k, v, mask, scale, softcap, sinks: flash(
        q, k, v, mask, scale, softcap)}  # fmt: skip


def moved(mask: Mask) -> Mask:
    if isinstance(mask, Documents):
        return Documents(mask.ids.cuda(), mask.causal, mask.window)
    return Prefix(mask.lengths.cuda()) if isinstance(mask, Prefix) else mask


@pytest.mark.slow
@pytest.mark.parametrize("which", ["sdpa", "flex", "flash"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("more", ["", "soft cap", "sinks", "few"])
def test_output_and_gradients(which: str, name: str, dtype: torch.dtype, more: str) -> None:
    if more == "few" and name == "prefix" and which == "sdpa":
        pytest.skip("a part of a sequence comes to it without a prefix")
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 5 if more == "few" else 9, 16), (2, 2, 9, 16), (2, 2, 9, 16), (4,)]
    drawn = [torch.randn(shape, generator=generator).cuda() for shape in shapes]
    one = [tensor.to(dtype if tensor.dim() > 1 else torch.float32).requires_grad_() for tensor in drawn]
    mask, softcap, sinks = moved(MASKS[name]), 1.5 if more == "soft cap" else None, more == "sinks"
    if which == "flash":
        if flash_room.kernel is None:
            pytest.skip("flash-attn is not installed")
        if not flash_room.suits(one[0], one[1], one[2], mask, one[3] if sinks else None):
            pytest.skip("no kernel of FlashAttention computes this; the rule does not send it there")
    two = [tensor.detach().double().requires_grad_() for tensor in one]
    here = kernels()[which](*one[:3], mask, 0.3, softcap, one[3] if sinks else None)
    there = plain(*two[:3], mask, 0.3, softcap, two[3] if sinks else None)
    weight = torch.randn(there.shape, generator=generator).cuda()
    (here * weight).sum().backward()
    (there * weight).sum().backward()
    pairs = [(here, there), *((a.grad, b.grad) for a, b in zip(one[: 3 + sinks], two, strict=False))]
    for a, b in pairs:
        assert a is not None and b is not None
        assert float((a - b).abs().max() / b.abs().max()) <= BOUNDS[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["sdpa", "flex", "flash"])
@pytest.mark.parametrize("name", ["causal", "sliding", "documents"])
def test_memory_grows_with_the_sequence(which: str, name: str) -> None:
    if which == "flash" and flash_room.kernel is None:
        pytest.skip("flash-attn is not installed")
    peaks = []
    for seq in (8192, 32768):
        mask: Mask = {
            "causal": Causal(), "sliding": Window(127), "documents": Documents((torch.arange(seq) // 100)[None].cuda()),
        }[name]  # fmt: skip
        q, k, v = (torch.randn(1, 2, seq, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kernels()[which](q, k, v, mask, 0.125, None, None).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 5 * peaks[0], peaks
