"""Property and twin: passes of every stage go through a simulator with blocking receives; a cut is the best of all."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.parallel.layout import Layout
from pretrain.parallel.schedule import Message, Pass, bubble, cut, handed, messages, refuse, schedule, waiting

MUTANTS = [
    ("src/pretrain/parallel/schedule.py", "first = stages - stage - 1", "first = stages - stage"),
    ("src/pretrain/parallel/schedule.py", "2 * first + (chunks - 1) * stages", "first + (chunks - 1) * stages"),
    ("src/pretrain/parallel/schedule.py", "chunk if forward else chunks - 1 - chunk", "chunk"),
    ("src/pretrain/parallel/schedule.py", "turn * size + place % size", "turn * size + place // chunks"),
    ("src/pretrain/parallel/schedule.py", "return (stages - 1) / (", "return stages / ("),
    ("src/pretrain/parallel/schedule.py", "found = max(dearest, cost), squares", "found = dearest + cost, squares"),
    ("src/pretrain/parallel/schedule.py", "squares + cost**2", "squares"),
    ("src/pretrain/parallel/schedule.py", "micro_batches % layout.pp:", "micro_batches % layout.chunks:"),
]
SHAPES = st.tuples(st.integers(2, 5), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        st.just(shape[0]),
        st.integers(1, 4).map(lambda n: n * shape[0]) if shape[1] > 1 else st.integers(1, 12),
        st.just(shape[1]),
    )
)  # stages, micro-batches, chunks


@given(SHAPES)
def test_every_micro_batch_goes_once_each_way_and_few_wait(shape: tuple[int, int, int]) -> None:
    stages, micro_batches, chunks = shape
    for stage in range(stages):
        passes = schedule(stage, stages, micro_batches, chunks)
        every = {Pass(way, c, m) for way in (True, False) for c in range(chunks) for m in range(micro_batches)}
        assert len(passes) == len(every) and set(passes) == every
        now = most = 0
        for at, one in enumerate(passes):
            now += 1 if one.forward else -1
            most = max(most, now)
            if not one.forward:
                assert passes.index(one._replace(forward=True)) < at
        bound = stages - stage if chunks == 1 else stages * (chunks + 1) - 2 * stage - 1
        assert most == waiting(stage, stages, micro_batches, chunks) == min(bound, micro_batches * chunks)


@given(SHAPES)
def test_no_stage_waits_for_ever_and_a_step_is_as_long_as_theory_says(shape: tuple[int, int, int]) -> None:
    stages, micro_batches, chunks = shape
    length = simulated(*shape)
    busy = micro_batches * chunks * 3.0
    assert length == busy + 3.0 * (stages - 1) or micro_batches < stages
    if micro_batches >= stages:
        assert bubble(*shape) == pytest.approx(1 - busy / length)


def simulated(stages: int, micro_batches: int, chunks: int) -> float:
    """Time of a step where a forward pass takes 1 and a backward pass 2. A stage takes what another sends in the order
    of sending, and blocks until the one that it needs is there."""
    left = [iter(schedule(stage, stages, micro_batches, chunks)) for stage in range(stages)]
    running: list[Pass | None] = [next(passes) for passes in left]
    ready: dict[Message, float] = {}
    links: dict[tuple[int, int], Iterator[Message]] = {
        (a, b): messages(a, b, stages, micro_batches, chunks) for a in range(stages) for b in range(stages) if a != b
    }
    now, arrived = [0.0] * stages, dict[Message, float]()
    while any(running):
        moved = False
        for stage, one in enumerate(running):
            if one is None:
                continue
            part = one.chunk * stages + stage
            wanted, source = Message(stage, one.forward, part, one.micro_batch), part + (-1 if one.forward else 1)
            if 0 <= source < stages * chunks:
                link = links[source % stages, stage]
                while wanted not in arrived and (message := next(link, None)) is not None:
                    if message not in ready:  # not sent yet: put it back
                        links[source % stages, stage] = link = _after(message, link)
                        break
                    arrived[message] = ready[message]
                if wanted not in arrived:
                    continue
                now[stage] = max(now[stage], arrived[wanted])
            now[stage] += 1.0 if one.forward else 2.0
            message = handed(one, stage, stages, chunks)
            if message is not None:
                ready[message] = now[stage]
            running[stage] = next(left[stage], None)
            moved = True
        assert moved, "every stage waits for another"
    return max(now)


def _after(first: Message, rest: Iterator[Message]) -> Iterator[Message]:
    yield first
    yield from rest


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 5))
@example([1, 5, 3, 2], 3)
def test_a_cut_is_the_best_of_all(costs: list[int], parts: int) -> None:
    parts = min(parts, len(costs))
    found = cut(costs, parts)
    assert [i for run in found for i in run] == list(range(len(costs))) and all(found) and len(found) == parts
    every = [[0, *ends, len(costs)] for ends in combinations(range(1, len(costs)), parts - 1)]
    dearest = [max(sum(costs[a:b]) for a, b in pairwise(ends)) for ends in every]
    assert max(sum(costs[i] for i in run) for run in found) == min(dearest)


def test_alike_layers_are_dealt_out_evenly_and_a_large_head_counts() -> None:
    assert sorted(len(run) for run in cut([1.0] * 10, 4)) == [2, 2, 3, 3]
    assert sorted(len(run) for run in cut([3.0, *[1.0] * 7], 4)) == [1, 2, 2, 3]
    assert [len(run) for run in cut([1.0] * 7 + [3.0], 2)] == [5, 3]


def test_what_no_pipeline_can_be_is_refused_with_what_can() -> None:
    with pytest.raises(UserError, match="pp 4 · chunks 2 = 8 parts are more than the 6 layers") as told:
        refuse(Layout(pp=4, chunks=2), 6, 8)
    assert told.value.expected == "pp · chunks of at most 6"
    with pytest.raises(UserError, match="rounds of pp = 4, which does not divide the 6 micro-batches") as told:
        refuse(Layout(pp=4, chunks=2), 8, 6)
    assert told.value.expected.startswith("pp = 1 or 2 or 3 or 6")
    refuse(Layout(pp=4), 4, 1)
    assert bubble(4, 2) == 0.6
