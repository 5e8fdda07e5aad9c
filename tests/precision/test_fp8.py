"""Twin and property: float8 by its specification's tables in exact fractions; scales in closed form; products and their
gradients by a brute-force version in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from precision.formats import E4M3, E5M2, all_nearest, nearest, table
from pretrain.model.layers.experts import grouped, one_by_one
from pretrain.precision import fp8
from pretrain.precision.linear import Kind, ScaledLinear, Scaling, scaled_linear

MUTANTS = [
    ("src/pretrain/precision/fp8.py", "largest.double().clamp_min(LEAST)", "largest.double()"),
    ("src/pretrain/precision/fp8.py", "& 0x7F800000", "& 0x7FC00000"),
    ("src/pretrain/precision/fp8.py", "(x.float() * scale)", "(x.bfloat16().float() * scale)"),
    ("src/pretrain/precision/fp8.py", "a.scale.reciprocal(), b.scale.reciprocal().t()", "a.scale, b.scale.t()"),
    ("src/pretrain/precision/linear.py", "if gradient and self.kind", "if self.kind"),
    ("src/pretrain/precision/linear.py", "power=rows", "power=False"),
    ("src/pretrain/precision/linear.py", "size.amax(-1, keepdim=True) if rows", "size.amax() if rows"),
    ("src/pretrain/precision/linear.py", "a, b = pad(a, (0, short)), pad(b, (0, short))", "a = a * 2"),
    ("src/pretrain/precision/linear.py", "self.bias.to(out.dtype)", "0"),
]  # fmt: skip
KINDS: list[Kind] = ["fp8", "fp8_rowwise", "mxfp8"]
numbers = st.floats(-70_000, 70_000, width=32)


@pytest.mark.parametrize("kind", [E4M3, E5M2])
def test_every_code_is_what_the_specification_says(kind: torch.dtype) -> None:
    held = torch.arange(256).to(torch.uint8).view(kind).double().tolist()
    for value, expected in zip(held, table(kind), strict=True):
        assert math.isfinite(value) == (expected is not None)
        assert expected is None or Fraction(value) == expected
    largest = {E4M3: 448, E5M2: 57344}
    assert max(value for value in table(kind) if value is not None) == largest[kind] == torch.finfo(kind).max


@pytest.mark.parametrize("kind", [E4M3, E5M2])
@given(x=st.one_of(numbers, numbers.map(lambda x: float(np.float32(x / 2**20))), st.sampled_from([17.0, -19.0, 1e9])))
def test_numbers_go_to_the_nearest_even_and_stop_at_the_largest(kind: torch.dtype, x: float) -> None:
    made = fp8.cast(torch.tensor([x]), torch.tensor(1.0), kind).values
    assert Fraction(float(made.double())) == nearest(x, kind)


@given(largest=st.floats(0, 2.0**100, width=32))
def test_scales_make_the_largest_number_the_formats_largest(largest: float) -> None:
    for kind, most in ((E4M3, 448), (E5M2, 57344)):
        exact = Fraction(most) / max(Fraction(largest), Fraction(1e-12))
        scale = float(fp8.scale_of(torch.tensor(largest), kind, power=False))
        assert abs(Fraction(scale) - exact) <= exact * Fraction(2) ** -24 * Fraction(1.001)
        power = float(fp8.scale_of(torch.tensor(largest), kind, power=True))
        assert power == 2.0 ** (math.frexp(scale)[1] - 1)


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 10 ** torch.randn(shape, generator=generator) for shape in shapes]


def twin(x: Tensor, kind: Kind, of: torch.dtype) -> Tensor:
    """What a matrix [rows, k] becomes in narrow numbers, in float64."""
    most, x = torch.finfo(of).max, x.double()
    parts = x if kind != "mxfp8" else x.unflatten(-1, (-1, 32))
    largest = parts.abs().max() if kind == "fp8" else parts.abs().amax(-1, keepdim=True)
    if kind == "mxfp8":
        scale = 2.0 ** (8 - largest.log2().floor())
    else:
        scale = (most / largest).float()
        scale = scale.double() if kind == "fp8" else 2.0 ** scale.double().log2().floor()
    narrow = (parts.float() * scale.float()).clamp(-most, most)
    return (all_nearest(narrow, of) / scale.float()).view(x.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_gradients_are_those_of_the_narrow_numbers(kind: Kind) -> None:
    x, weight, up = drawn((2, 5, 64), (32, 64), (2, 5, 32))
    x, weight = (one.double().requires_grad_() for one in (x, weight))
    scaled_linear(x, weight, Scaling(kind)).backward(up.double())
    out = scaled_linear(x, weight, Scaling(kind))
    rows, of = x.detach().flatten(0, 1), E5M2 if kind == "fp8" else E4M3
    up, short = up.flatten(0, 1), -10 % 32
    wide = [torch.nn.functional.pad(one.T, (0, short)) for one in (up, rows)]  # tokens, up to a block
    pairs = {
        "out": (out.flatten(0, 1), twin(rows, kind, E4M3) @ twin(weight.detach(), kind, E4M3).T),
        "x": (x.grad, twin(up, kind, of) @ twin(weight.detach().T, kind, E4M3).T),
        "weight": (weight.grad, twin(wide[0], kind, of) @ twin(wide[1], kind, E4M3).T),
    }
    for name, (ours, theirs) in pairs.items():
        assert ours is not None
        assert float((ours.detach().view(theirs.shape) - theirs).abs().max() / theirs.abs().max()) < 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_an_emulated_product_is_within_its_bound(kind: Kind) -> None:
    """k sums in float32 are within k · 2^-24 of Σ|a·b|: far inside the bound of units, 2^-12."""
    x, weight = drawn((8, 512), (16, 512))
    out = Scaling(kind).product(x, weight, ("tokens in", "out in"), torch.float32, gradient=False)
    left, right = (twin(one, kind, E4M3) for one in (x, weight))
    assert bool(((out - left @ right.T).abs() <= 2.0**-15 * (left.abs() @ right.abs().T)).all())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it compiles
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_keeps_its_bias_recomputes_and_compiles(kind: Kind) -> None:
    x, weight, bias = drawn((3, 7, 32), (64, 32), (64,))
    plain = torch.nn.Linear(32, 64)
    plain.weight.data, plain.bias.data = weight, bias
    layer = ScaledLinear(plain, Scaling(kind))
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype is torch.bfloat16
    assert torch.equal(layer(x), scaled_linear(x, weight, layer.scaling) + bias)
    found = []
    for run in (
        layer,
        lambda one: checkpoint(layer, one, use_reentrant=False),
        torch.compile(layer, backend="aot_eager"),
    ):
        x.grad, layer.weight.grad = None, None
        run(x).square().sum().backward()
        assert x.grad is not None and layer.weight.grad is not None
        found.append((x.grad.clone(), layer.weight.grad.clone()))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    with torch.no_grad():  # what is scored and released is the plain model
        assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("kind", KINDS)
def test_each_expert_has_scales_of_its_own(kind: Kind) -> None:
    rows, stack = drawn((9, 32), (4, 64, 32))
    counts, scaling = torch.tensor([3, 0, 5, 1]), Scaling(kind)
    out = grouped(rows, stack, counts, scaling)
    apart = [scaled_linear(part, matrix, scaling) for part, matrix in zip(rows.split([3, 0, 5, 1]), stack, strict=True)]
    assert torch.equal(out, torch.cat(apart))
    assert 0 < float((out - one_by_one(rows, stack, counts)).norm() / out.norm()) < 0.1
