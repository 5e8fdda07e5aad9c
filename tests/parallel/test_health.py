"""Twin, property and ordeal: of equal devices none is named, of unequal ones the slow; ranks name what is wrong."""

import math
import statistics
import time
from dataclasses import replace

import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pretrain.parallel.health import Figures, Finding, copies, judge, measure, rounds, swapped
from ranks import ranks

MUTANTS = [
    ("src/pretrain/parallel/health.py", "statistics.median(speeds", "max(speeds"),
    (
        "src/pretrain/parallel/health.py",
        "max(speeds.values()) if len(speeds) == 2",
        "min(speeds.values()) if len(speeds) == 2",
    ),
    ("src/pretrain/parallel/health.py", "x < self.least * usual", "x < usual"),
    ("src/pretrain/parallel/health.py", "SLOW = 0.8", "SLOW = 0.4"),
    ("src/pretrain/parallel/health.py", "inside if one.host == other.host", "inside if one"),
    ("src/pretrain/parallel/health.py", "if one.place != other.place", "if one"),
    ("src/pretrain/parallel/health.py", "max(getattr(every[rank]", "min(getattr(every[rank]"),
    ("src/pretrain/parallel/health.py", "!= known).sum()", "!= known).sum() * 0"),
    ("src/pretrain/parallel/health.py", "wrong += int((into != expected).sum())", ""),
    ("src/pretrain/parallel/health.py", "range(size if size > 2 else size - 1)", "range(size - 1)"),
    ("src/pretrain/parallel/health.py", "for pattern in (words, ~words)", "for pattern in (words,)"),
]
GOOD = Figures("a", "cpu", 1e11, 1e10, 1e9, 1e-4)
FIELDS = ("matmul", "memory", "link", "latency")


def slow(found: list[Finding]) -> set[tuple[int, str]]:
    return {(one.rank, one.what.partition(" ")[0]) for one in found}


@given(st.lists(st.tuples(*[st.floats(0.9, 1.1)] * 4), min_size=1, max_size=12), st.data())
def test_noise_names_nobody_and_half_the_speed_is_always_named(
    noise: list[tuple[float, ...]], data: st.DataObject
) -> None:
    every = [
        replace(
            GOOD, device=f"cuda:{i}", **{name: getattr(GOOD, name) * x for name, x in zip(FIELDS, row, strict=True)}
        )
        for i, row in enumerate(noise)
    ]
    assert judge(every) == []
    if len(every) < 2:
        return
    rank, name = data.draw(st.integers(0, len(every) - 1)), data.draw(st.sampled_from(FIELDS))
    worse = 3.5 if name == "latency" else 0.5
    every[rank] = replace(every[rank], **{name: getattr(every[rank], name) * worse})
    (found,) = judge(every)
    assert (found.rank, found.what.partition(" ")[0], found.state) == (rank, name, "slow")
    values = sorted(getattr(one, name) for one in every)
    if len(every) > 2:
        assert math.isclose(found.usual, statistics.median(values)) or name == "latency"
        assert f"of the median of {len(every)}" in str(found)
    else:
        assert math.isclose(found.usual, values[0] if name == "latency" else values[1])
        assert f"{found.value / found.usual:.2f} of the other one's" in str(found)


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=9))
def test_as_a_brute_force_twin_says(speeds: list[float]) -> None:
    def usual() -> float:  # the value that as many exceed as fall short of
        order = sorted(speeds)
        while len(order) > 2:
            order = order[1:-1]
        return sum(order) / len(order)

    named = {(rank, "matmul") for rank, speed in enumerate(speeds) if speed < 0.8 * usual()}
    assert slow(judge([replace(GOOD, host=f"{i}", matmul=speed) for i, speed in enumerate(speeds)])) == named


def test_a_network_is_not_compared_with_what_is_inside_a_host() -> None:
    inside, between = replace(GOOD, link=4e11), replace(GOOD, link=4e10)
    flat = [replace(between if i == 3 else inside, host=host, device=f"cuda:{i}") for host in "abcd" for i in range(4)]
    assert judge(flat) == []
    flat[13] = replace(flat[13], across=2e10)
    for rank in (3, 7, 11, 12):
        flat[rank] = replace(flat[rank], across=4e10)
    (found,) = judge(flat)
    assert (found.rank, found.hosts, found.what) == (13, ("d", "a"), "across to rank 1 (a)")
    flat[13] = replace(flat[13], across=4e10)
    flat[7] = replace(flat[7], link=1e10)
    (found,) = judge(flat)
    assert (found.rank, found.hosts) == (7, ("b", "c"))
    assert str(found) == ("rank 7 (b, cuda:3): link to rank 8 (c): 9.31 GiB/s, 0.25 of the median of 4, 37.3 GiB/s")


def test_ranks_that_share_a_cpu_are_compared_as_one_with_other_hosts() -> None:
    share = [replace(GOOD, matmul=x, memory=y, link=z) for x, y, z in ((1e11, 1e10, 1e9), (3e10, 4e9, 1e8))]
    assert judge(share) == []
    hosts = [replace(one, host=host) for host in "ab" for one in share]
    hosts[3] = replace(hosts[3], matmul=1e10)
    assert judge(hosts) == []
    hosts[:2] = [replace(one, matmul=one.matmul / 2) for one in hosts[:2]]
    assert slow(judge(hosts)) == {(0, "matmul")}
    assert "0.50 of the other one's" in str(judge(hosts)[0])


@given(st.integers(1, 50), st.integers(1, 8))
def test_every_neighbour_is_met_once_and_nobody_twice_at_a_time(hosts: int, each: int) -> None:
    ranks, found = hosts * each, rounds(hosts * each, each)
    met = sorted(tuple(sorted(pair)) for pairs in found for pair in pairs)
    assert met == sorted({tuple(sorted((one, (one + each) % ranks))) for one in range(ranks) if hosts > 1})
    assert len(found) <= 3
    for pairs in found:
        both = [rank for pair in pairs for rank in pair]
        assert len(both) == len(set(both))


@ranks(4)
def test_ranks_name_who_is_slow_and_who_is_wrong() -> None:
    rank = dist.get_rank()

    def product(a: Tensor, b: Tensor) -> Tensor:
        out = a @ b
        if rank == 1:
            time.sleep(0.2)
        if rank == 2:
            out[300, 7] += 1
        return out

    def swap(own: Tensor, into: Tensor, peer: int) -> None:
        swapped(own, into, peer)
        if rank == 0 and len(into) > 2:  # a link that turns a bit on the way
            into[5] ^= 1

    every = measure(f"host-{rank // 2}", "cpu", torch.bfloat16, 2, product=product, swap=swap)
    assert [one.host for one in every] == ["host-0", "host-0", "host-1", "host-1"]
    assert all(math.isfinite(getattr(one, name)) for one in every for name in FIELDS)
    assert [math.isfinite(one.across) for one in every] == [True, True, False, False]
    found = judge(every)
    wrong = [(one.rank, one.what, one.value > 0, one.hosts) for one in found if one.state == "wrong"]
    assert wrong == [
        (0, "messages from its neighbours", True, ("host-0",)),
        (2, "matmul", True, ("host-1",)),
    ]
    assert every[0].wrong_link == 3  # from both sides, and from across
    apart = [replace(one, host=f"host-{i}") for i, one in enumerate(every)]
    assert (1, "matmul") in slow(judge(apart))  # of ranks that share a CPU the best one stands for it


def test_a_bit_that_memory_does_not_keep_is_seen() -> None:
    def always(into: Tensor, words: Tensor) -> Tensor:
        into.copy_(words)
        into[9] |= 4
        return into

    def never(into: Tensor, words: Tensor) -> Tensor:
        into.copy_(words)
        into[9] &= ~4
        return into

    assert copies("cpu")[1] == 0
    assert copies("cpu", always)[1] == copies("cpu", never)[1] == 1  # in a pattern or in its opposite


def test_one_device_alone_is_right_or_wrong() -> None:
    (alone,) = measure("here", "cpu", torch.bfloat16)
    assert judge([alone]) == [] and math.isnan(alone.link)

    def stuck(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).clamp(max=60)

    (wrong,) = judge(measure("here", "cpu", torch.float32, product=stuck))
    assert wrong.state == "wrong" and str(wrong).startswith("rank 0 (here, cpu): matmul: ")
