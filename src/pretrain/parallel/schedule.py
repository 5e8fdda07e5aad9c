"""Which micro-batch goes through which part of a stack, forward or backward, and when.

One forward, one backward (Narayanan et al. 2019, PipeDream, SOSP, 3.2), and the same over several parts a stage,
interleaved (Narayanan et al. 2021, arXiv 2104.04473, 2.2). Backward passes are never split in two: FSDP2 in torch 2.13
then loses gradients of weights, in silence.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pretrain.base.errors import UserError
from pretrain.parallel.layout import Layout, divisors


class Pass(NamedTuple):
    """One micro-batch through one of a stage's chunks."""

    forward: bool
    chunk: int
    micro_batch: int


class Message(NamedTuple):
    """What a pass hands on to part `part` of the stack, of all parts, on stage `to`."""

    to: int
    forward: bool
    part: int
    micro_batch: int


def schedule(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> list[Pass]:
    """The passes of a stage, in order: every micro-batch once forward and once backward through each of its chunks.

    Several chunks need micro-batches in whole rounds of `stages`.
    """
    total, ahead = micro_batches * chunks, waiting(stage, stages, micro_batches, chunks) - 1
    size = stages if chunks > 1 else 1

    def nth(number: int, forward: bool) -> Pass:
        turn, place = divmod(number, size * chunks)
        chunk = place // size
        return Pass(forward, chunk if forward else chunks - 1 - chunk, turn * size + place % size)

    out = [nth(number, True) for number in range(ahead)]
    for number in range(total):
        if number + ahead < total:
            out.append(nth(number + ahead, True))
        out.append(nth(number, False))
    return out


def waiting(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> int:
    """How many forward passes of a stage wait for their backward pass, at most, with what they keep."""
    first = stages - stage - 1
    return min((first if chunks == 1 else 2 * first + (chunks - 1) * stages) + 1, micro_batches * chunks)


def handed(one: Pass, stage: int, stages: int, chunks: int) -> Message | None:
    """What a pass of a stage hands on: hidden states to the next part of the stack, or their gradient to the one
    before. Part i is a chunk of stage i mod stages."""
    part = one.chunk * stages + stage + (1 if one.forward else -1)
    inside = 0 <= part < stages * chunks
    return Message(part % stages, one.forward, part, one.micro_batch) if inside else None


def messages(source: int, to: int, stages: int, micro_batches: int, chunks: int) -> Iterator[Message]:
    """All that one stage sends to another in a step, in order; both sides know it."""
    for one in schedule(source, stages, micro_batches, chunks):
        message = handed(one, source, stages, chunks)
        if message is not None and message.to == to:
            yield message


def bubble(stages: int, micro_batches: int, chunks: int = 1) -> float:
    """The share of a step in which a stage waits, where all passes take as long."""
    return (stages - 1) / (micro_batches * chunks + stages - 1)


def cut(costs: Sequence[float], parts: int) -> list[range]:
    """Layers as so many runs, none empty, that the dearest run costs least; of those, the most alike."""
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best = {0: (0.0, 0.0, list[int]())}  # of the first layers, dealt out so far: dearest run, squares, ends
    for part in range(parts):
        after: dict[int, tuple[float, float, list[int]]] = {}
        for begin, (dearest, squares, ends) in best.items():
            for end in range(begin + 1, len(costs) - (parts - part - 1) + 1):
                cost = sums[end] - sums[begin]
                found = max(dearest, cost), squares + cost**2, [*ends, end]
                after[end] = min(after.get(end, found), found)
        best = after
    ends = best[len(costs)][2]
    return [range(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def refuse(layout: Layout, layers: int, micro_batches: int) -> None:
    """Raises UserError where a stack or a batch cannot be divided so, with the arithmetic and what would do."""
    parts = layout.pp * layout.chunks
    if layout.pp > 1 and parts > layers:
        what = f"pp {layout.pp} · chunks {layout.chunks} = {parts} parts are more than the {layers} layers"
        raise UserError(f"parallel: {what}", expected=f"pp · chunks of at most {layers}")
    if layout.pp > 1 and layout.chunks > 1 and micro_batches % layout.pp:
        what = f"interleaved passes come in rounds of pp = {layout.pp}, which does not divide the {micro_batches}"
        near = " or ".join(map(str, divisors(micro_batches)[:8]))
        expected = f"pp = {near}, another train.micro_batch or batch, or chunks = 1"
        raise UserError(f"parallel: {what} micro-batches of a rank", expected=expected)
