"""Twin, on a GPU: units give the emulated product within its bound, of the same numbers. `pytest
tests/precision/test_device.py` on a machine that has one."""

from dataclasses import replace

import pytest
import torch

from pretrain.precision import fp8, mx
from pretrain.precision.linear import Kind, Scaling, scaled_linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: units for float8 are there")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp8", "fp8_rowwise", "mxfp8"])
@pytest.mark.parametrize("tokens", [256, 250])
def test_units_multiply_as_the_emulation(kind: Kind, tokens: int) -> None:
    if not (mx.native if kind == "mxfp8" else fp8.native)("cuda"):
        pytest.skip(f"this GPU has no units for {kind}")
    generator = torch.Generator().manual_seed(0)
    x, weight, up = (torch.randn(s, generator=generator).cuda() for s in ((tokens, 512), (384, 512), (tokens, 384)))
    found = []
    for native in (False, True):
        one, two = (tensor.detach().clone().requires_grad_() for tensor in (x.bfloat16(), weight))
        out = scaled_linear(one, two, replace(Scaling(kind), native=native))
        out.backward(up.bfloat16())
        found.append((out, one.grad, two.grad))
    bounds = (x.abs() @ weight.abs().T, up.abs() @ weight.abs(), up.abs().T @ x.abs())  # Σ|a·b|
    for emulated, made, bound in zip(*found, bounds, strict=True):
        assert emulated is not None and made is not None
        assert bool(((made - emulated).abs().float() <= 2.0**-12 * bound + 2.0**-7 * emulated.abs().float()).all())
