"""Ordeal: what ends a loop, and what is saved before it does."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.checkpoint.save import newest
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Saved, Step
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import Policy, choose
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Schedule, Train
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import Callback, Place, train
from pretrain.train.step import Steps

nimble = find("model.families", "nimble")
CONFIG = nimble.Config(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
SECTION = Train(
    optimizer=Leaf(("optimizer.kinds",), "adamw"),
    schedule=Schedule("constant", warmup=0.0),
    batch=32,
    sequence=8,
    checkpoint_every=4,
    log_every=2,
)


@pytest.fixture
def loop(tmp_path: Path) -> Callable[..., tuple[list[Event], State]]:
    """Six steps of a tiny model, unless something ends them."""
    writer = ShardWriter(tmp_path / "tokens", vocab_size=16, shard_tokens=2**12, end=0)
    writer.add("0" * 32, np.arange(1000) % 15 + 1)
    writer.close()
    rows, history = Rows(tmp_path / "tokens", 8), History((Segment(0, {"a": 1.0}, {}),))
    model = make(nimble, CONFIG)
    initialise(model, nimble.weights(CONFIG), 0.02, 0)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, nimble.weights(CONFIG))
    state = State(model, nimble.weights(CONFIG), optimizer, 0, 0, history)
    policy: Policy = choose("fp32", "cpu")
    steps = Steps(
        find("objective.kinds", "next_token").NextToken(), Vocabulary(16), policy,
        documents=False, clip=1.0, z_loss=0.0, micro_batch=4, forward=model,
    )  # fmt: skip

    def run(tell: Callable[[Event], None], *callbacks: Callback) -> tuple[list[Event], State]:
        events: list[Event] = []

        def report(event: Event) -> None:
            events.append(event)
            tell(event)

        place = Place(tmp_path / "checkpoints", "", report, 1.0, 1.0)
        data = Data(Order(0, {"a": len(rows)}, history), {"a": rows}, 8)
        try:
            train(state, data, SECTION, 6, steps, place, callbacks)
        except KeyboardInterrupt:
            events.append(Event())
        return events, state

    return run


def shapes(events: list[Event]) -> list[tuple[str, int]]:
    return [(type(event).__name__, getattr(event, "step", 0)) for event in events]


def apart(events: list[Event]) -> dict[str, list[int]]:
    """Steps by kind: when an event that a thread works on comes between others is not certain."""
    kinds = dict.fromkeys(name for name, _ in shapes(events))
    return {kind: [step for name, step in shapes(events) if name == kind] for kind in kinds}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("at", "ends"), [(2, 3), (4, 5)])
def test_a_stop_that_comes_while_a_step_is_told_saves_the_next(
    loop: Callable[..., tuple[list[Event], State]], tmp_path: Path, number: int, at: int, ends: int
) -> None:
    def tell(event: Event) -> None:
        if isinstance(event, Step) and event.step == at:
            os.kill(os.getpid(), number)

    events, state = loop(tell)
    told = [one for one in shapes(events) if one != ("Saved", ends - 1)]  # that one may be written meanwhile
    assert told[-3:] == [("Step", ends), ("Saved", ends), ("Event", 0)]
    found, damaged = newest(tmp_path / "checkpoints")
    assert found is not None and found.name == f"step-{ends:08d}" and not damaged and state.step == ends


def test_a_checkpoint_is_begun_before_what_falls_on_its_step_and_ends_whole(
    loop: Callable[..., tuple[list[Event], State]], tmp_path: Path
) -> None:
    def out_of_memory(state: State) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        loop(lambda event: None, (4, out_of_memory))
    found, damaged = newest(tmp_path / "checkpoints")
    assert found is not None and found.name == "step-00000004" and not damaged


def test_steps_are_told_and_saved_as_the_recipe_says(loop: Callable[..., tuple[list[Event], State]]) -> None:
    seen: list[int] = []
    events, state = loop(lambda event: None, (3, lambda state: seen.append(state.step)))
    assert apart(events) == {"Step": [2, 4, 6], "Saved": [4, 6]} and shapes(events)[-1] == ("Saved", 6)
    assert seen == [3, 6] and (state.step, state.position) == (6, 24)
    told = [event for event in events if isinstance(event, Step)]
    assert [(one.position, one.rows, one.tokens) for one in told] == [(4, 4, 64), (12, 4, 128), (20, 4, 192)]
    first, last = (event for event in events if isinstance(event, Saved))
    assert first.saved_bytes > 0 and first.save_seconds > 0 and first.write_seconds > 0
    assert last.write_seconds <= last.save_seconds  # the last one is waited for


def test_a_loss_that_is_no_number_is_never_saved(
    loop: Callable[..., tuple[list[Event], State]], tmp_path: Path
) -> None:
    def spoil(state: State) -> None:
        state.model.get_parameter("embed.weight").data.fill_(float("nan"))

    with pytest.raises(UserError, match=r"loss nan .* at step 6"):
        loop(lambda event: None, (5, spoil))
    found, _ = newest(tmp_path / "checkpoints")
    assert found is not None and found.name == "step-00000004"
