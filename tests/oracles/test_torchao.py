"""Oracle: torchao's float8 and MX casts and linear layer, bit for bit. It lies in a venv of its own (a folder with this
project's packages and `pip install --no-deps torchao==0.18.0`): `pytest tests/oracles/test_torchao.py` there."""

import warnings

import pytest
import torch

from pretrain.precision import fp8, mx
from pretrain.precision.linear import E4M3, E5M2, Kind, Scaling, scaled_linear

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torchao", reason="torchao is in a venv of its own: see this file's first lines")
    from torchao.float8.config import Float8LinearConfig, ScalingGranularity
    from torchao.float8.float8_linear import Float8Linear
    from torchao.float8.float8_utils import tensor_to_scale, to_fp8_saturated
    from torchao.prototype.mx_formats.mx_tensor import to_mx

RECIPES: dict[Kind, str] = {"fp8": "tensorwise", "fp8_rowwise": "rowwise"}


def drawn(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 10 ** torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("kind", [E4M3, E5M2])
@pytest.mark.parametrize("rows", [False, True])
def test_scales_and_numbers_are_torchaos(kind: torch.dtype, rows: bool) -> None:
    for x in (drawn((64, 96))[0], drawn((64, 96))[0].bfloat16(), torch.zeros(4, 16)):
        grain = ScalingGranularity.AXISWISE if rows else ScalingGranularity.TENSORWISE
        scale = tensor_to_scale(
            x, kind, scaling_granularity=grain, axiswise_dim=-1 if rows else None, round_scales_to_power_of_2=rows
        )
        largest = x.abs().amax(-1, keepdim=True) if rows else x.abs().amax()
        mine = fp8.cast(x, fp8.scale_of(largest, kind, power=rows), kind)
        assert torch.equal(mine.scale, scale)
        assert torch.equal(mine.values.view(torch.uint8), to_fp8_saturated(x.float() * scale, kind).view(torch.uint8))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_layer_is_torchaos(kind: Kind) -> None:
    x, weight, up = drawn((32, 64), (48, 64), (32, 48))
    x, up = x.bfloat16(), up.bfloat16()
    linear = torch.nn.Linear(64, 48, bias=False)
    linear.weight.data = weight.bfloat16()  # torchao multiplies bfloat16 weights where there is no autocast
    theirs = Float8Linear.from_float(linear, Float8LinearConfig.from_recipe_name(RECIPES[kind]))
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    own = weight.bfloat16().requires_grad_()
    outs = scaled_linear(one, own, Scaling(kind)), theirs(two)
    outs[0].backward(up), outs[1].backward(up)
    pairs = (outs, (one.grad, two.grad), (own.grad, linear.weight.grad))
    for ours, other in pairs:
        assert ours is not None and other is not None
        off = (ours - other).abs().float() / other.abs().float().clamp_min(1e-3 * float(other.abs().max()))
        assert float(off.max()) <= 2.0**-7  # one rounding to bfloat16


def test_blocks_are_torchaos() -> None:
    """But where a code is 0: torchao divides by 2^-126 there, though the code says 2^-127."""
    x = torch.cat([drawn((64, 96))[0], torch.zeros(1, 96), torch.full((1, 96), 2.0**-117)])
    scale, values = to_mx(x, E4M3, 32)
    mine = mx.cast(x)
    assert torch.equal(mine.codes, scale.view(torch.uint8))
    assert torch.equal(mine.values.double(), values.view(66, 96).double())
