"""A tiny run that may meet bad batches, be killed and go on, on one rank or several, for tests of what it survives."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from pretrain.base.extension import find
from pretrain.checkpoint.save import load, newest
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Step
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.objective.cross_entropy import Loss
from pretrain.objective.kinds.next_token import NextToken
from pretrain.objective.objective import Cost, Given
from pretrain.order.batch import Batch, Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.parallel.apply import Ranks
from pretrain.precision.policy import Policy
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Guard, Schedule, Train
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import Place, train
from pretrain.train.step import Steps

ROW, ROWS_A_STEP, EVERY = 8, 4, 3
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2,
)  # fmt: skip


@dataclass(frozen=True)
class Loud(NextToken):
    """Next token, where one sample of some batches, by their first rows, is as loud as said."""

    bad: dict[int, float] = field(default_factory=dict)

    def prepare(self, batch: Batch, vocabulary: Vocabulary) -> Batch:
        loud = np.array([self.bad.get(int(row), 1.0) for row in batch.rows], np.float32)
        return replace(batch, extra={"loud": loud})

    def loss(self, given: Given, cost: Cost) -> dict[str, Loss]:
        found = super().loss(given, cost)["next_token"]
        return {"next_token": Loss(found.total * given.extra["loud"].prod(), found.count)}


@dataclass(frozen=True)
class Without(Data):
    """The truth: an order that never had the rows of [start, stop), whatever a position is."""

    gap: tuple[int, int] = (0, 0)

    def batch(self, position: int, rows: int, rank: int = 0, of: int = 1) -> Batch:
        start, stop = self.gap
        return super().batch(position + (stop - start if position >= start else 0), rows, rank, of)


def section(**guard: object) -> Train:
    return Train(
        optimizer=Leaf(("optimizer.kinds",), "adamw"),
        schedule=Schedule("wsd", warmup=0.2),
        batch=ROW * ROWS_A_STEP,
        sequence=ROW,
        checkpoint_every=EVERY,
        keep=9,
        guard=Guard(**{"window": 4, "ahead": 1, "factor": 8.0, **guard}),  # type: ignore[arg-type]
    )


def tokens(folder: Path) -> None:
    """A thousand tokens."""
    writer = ShardWriter(folder / "tokens", vocab_size=16, shard_tokens=2**12, end=0)
    writer.add("0" * 32, np.arange(1000) * np.arange(1000) // 7 % 15 + 1)
    writer.close()


def taught(
    folder: Path,
    name: str,
    total: int,
    rules: Train,
    bad: dict[int, float] | None = None,
    gap: tuple[int, int] = (0, 0),
    on: Ranks | None = None,
    kill: int = 0,
    turns: Sequence[int] = (),
) -> tuple[State, list[Event]]:
    """The state after `total` steps of the run of that name, from its newest checkpoint on, or until it is killed."""
    on = on or Ranks()
    rows = {"a": Rows(folder / "tokens", ROW)}
    history = History(tuple(Segment(turn, {"a": 1.0}, {"a": turn}) for turn in (0, *turns)))
    data = Without(Order(0, {"a": len(rows["a"])}, history), rows, ROW, gap=gap)
    model, table = make(llama, CONFIG).double(), llama.weights(CONFIG)
    initialise(model, table, 0.1, 0)
    table = on.apply(model, table, CONFIG.axes())
    wholly = [] if on.alone else [on.wholly(table, CONFIG.axes())]
    optimizer = find("optimizer.kinds", "adamw").AdamW(lr=0.01).build(model, table, *wholly)
    state = State(model, table, optimizer, 0, 0, history, CONFIG.axes(), on)
    found, _ = newest(folder / name)
    if found is not None:
        load(found, state)
    steps = Steps(
        Loud(bad or {}), Vocabulary(16), Policy(torch.float32, "cpu"),
        documents=False, clip=1.0, z_loss=0.0, micro_batch=1, forward=model, ranks=on,
    )  # fmt: skip
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        if isinstance(event, Step) and event.step == kill:
            raise InterruptedError

    with suppress(InterruptedError):
        train(state, data, rules, total, steps, Place(folder / name, "", report, 1.0, 1.0))
    return state, events
