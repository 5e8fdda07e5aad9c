"""Ordeal: a rank that fails, or dies, fails its test with what it said."""

import os

import pytest
import torch.distributed as dist

from ranks import ranks


@ranks(2)
def one_fails() -> None:
    assert dist.get_rank() == 0, "the second one"


@ranks(2)
def one_dies() -> None:
    if dist.get_rank() == 1:
        os._exit(3)


def test_the_first_failure_is_shown() -> None:
    with pytest.raises(AssertionError, match=r"rank 1 of 2: Traceback(.|\n)*the second one"):
        one_fails()


def test_a_rank_that_dies_is_named() -> None:
    with pytest.raises(AssertionError, match="rank 1 of 2: died"):
        one_dies()
