"""Closed form and property: the shared exponent of a block, its numbers, and where units look for its code."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from precision.formats import E4M3, all_nearest
from pretrain.precision import mx

MUTANTS = [
    ("src/pretrain/precision/mx.py", "(exponent - LARGEST_POWER)", "exponent"),
    ("src/pretrain/precision/mx.py", ".clamp_min(-BIAS)", ""),
    ("src/pretrain/precision/mx.py", "power + BIAS, MEANINGLESS", "power + BIAS, 0"),
    ("src/pretrain/precision/mx.py", "word | 0x400000, word", "word, word"),
    ("src/pretrain/precision/mx.py", ".permute(0, 3, 2, 1, 4)", ".permute(0, 3, 1, 2, 4)"),
]
block = st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=32, max_size=32)
small = st.lists(st.floats(-1, 1, width=32), min_size=32, max_size=32).map(lambda xs: [x * 2.0**-130 for x in xs])


@given(xs=st.one_of(block, small, st.just([0.0] * 32)))
def test_a_block_shares_the_power_of_its_largest_number(xs: list[float]) -> None:
    """Section 6.3 of the specification: X = 2^(floor(log2(max|v|)) - 8), as small as 2^-127; v / X is rounded."""
    given_ = torch.tensor([xs])
    made, largest = mx.cast(given_), float(given_.abs().max())
    power = max(math.frexp(largest)[1] - 1 - 8 if largest else -127, -127)
    assert int(made.codes) == power + 127
    exact = given_.double() * 2.0**-power  # 2^-power as float64: within its range
    assert torch.equal(made.values.double(), all_nearest(exact, E4M3))
    assert torch.equal(mx.value(made, torch.float64), made.values.double() * 2.0**power)


def test_what_is_not_a_number_spoils_its_block_alone() -> None:
    x = torch.ones(2, 64)
    x[0, 3], x[1, 40] = torch.nan, torch.inf
    made = mx.cast(x)
    assert made.codes.tolist() == [[255, 119], [119, 255]]
    assert mx.value(made, torch.float32).isnan().unflatten(1, (2, 32)).all(-1).tolist() == [
        [True, False],
        [False, True],
    ]


def test_codes_are_powers_of_two() -> None:
    found = mx.powers(torch.arange(256).to(torch.uint8)).tolist()
    assert found[:255] == [2.0 ** (code - 127) for code in range(255)] and math.isnan(found[255])
    assert torch.equal(
        mx.powers(torch.arange(255).to(torch.uint8)),
        torch.arange(255).to(torch.uint8).view(torch.float8_e8m0fnu).float(),
    )


def test_units_find_a_code_where_cublas_says() -> None:
    rows, blocks = 200, 6
    codes = torch.arange(rows * blocks).to(torch.int32).view(rows, blocks)
    laid = mx.tiled(codes)
    assert laid.shape == (2 * 2 * 512,)
    for row in range(rows):
        for column in range(blocks):
            tile = (row // 128) * 2 + column // 4
            inside = (row % 32) * 16 + (row % 128 // 32) * 4 + column % 4
            assert laid[tile * 512 + inside] == codes[row, column]
