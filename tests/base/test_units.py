"""Closed form: quantities as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.base.units import count, seconds, show_bytes, show_count, show_seconds, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("15T", 15 * 10**12),
        ("128Ki tokens", 131072),
        ("2_000", 2000),
        ("1.5M tokens", 1_500_000),
        ("200 rows", 200),
        ("1 step", 1),
        ("2 B", 2 * 10**9),
        ("1Ki documents", 1024),
    ],
)
def test_counts(text: str, value: int) -> None:
    assert count(text) == value


def test_sizes_and_durations() -> None:
    assert [size("80GiB"), size("10 MB"), size("4096"), size("5 B")] == [80 * 2**30, 10**7, 4096, 5]
    assert [seconds("150 s"), seconds("2 h"), seconds("1.5 days"), seconds("20 min"), seconds("3")] == [
        150, 7200, 129600, 1200, 3,
    ]  # fmt: skip


WORDS = ["2 Billion", "2 bananas", "2 m", "1 Kib", "2 k bananas", "2 tokens tokens", "1e400"]


@pytest.mark.parametrize("text", ["", "many", "1.5", "12 Qi tokens of", "-3", "1.2345k", *WORDS])
def test_what_is_no_whole_count_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no whole quantity"):
        count(text)


@pytest.mark.parametrize("text", ["2 fortnights", "h", "1h 30m", "5 ms", "2 hs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no duration"):
        seconds(text)


def test_shown() -> None:
    assert [show_count(x) for x in (7, 999, 1000, 1_234_567, 15e12)] == ["7", "999", "1.00k", "1.23M", "15.0T"]
    assert [show_bytes(x) for x in (17, 1536, 80 * 2**30)] == ["17 B", "1.50 KiB", "80.0 GiB"]
    assert [show_seconds(x) for x in (0.25, 61, 93784, 3600)] == ["0.2 s", "1 min 1 s", "1 d 2 h", "1 h"]


@given(st.integers(1, 10**15))
def test_what_is_shown_reads_back_within_its_three_digits(value: int) -> None:
    shown = show_count(value)
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "P": 1e15}.get(shown[-1], 1)
    assert abs(float(shown.rstrip("kMBTP")) * scale - value) <= value * 0.0051
