"""Closed form: each objective, on the Llama block, learns more than the frequencies of tokens hold."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from batches import FIM, MASK
from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.ahead import add_ahead
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.objective.objective import Objective, losses
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import choose
from pretrain.shards.write import ShardWriter
from pretrain.train.step import Steps, train_step

MUTANTS = [
    (
        "src/pretrain/objective/objective.py",
        'asked: dict[str, object] = {} if objective.causal else {"causal": False}',
        "asked: dict[str, object] = {}",
    ),
    ("src/pretrain/objective/objective.py", 'asked["ahead"] = True', 'asked["ahead"] = False'),
    ("src/pretrain/model/decoder.py", "Documents(documents, causal, lengths", "Documents(documents, lengths"),
    (
        "src/pretrain/order/batch.py",
        "np.arange(0, self.row, sequence)  #",
        "0 * np.arange(0, self.row, sequence)  #",
    ),
    ("src/pretrain/order/batch.py", "source.repeat(samples).tolist()", "np.tile(source, samples).tolist()"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
)
KNOWN = Vocabulary(40, 32, MASK, frozenset(range(32, 40)), FIM)
HISTORY = History((Segment(0, {"count": 1.0, "jump": 1.0}, {}),))
UNIGRAM = math.log(16)  # every id below 16 stands in the text alike


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Documents that count, by ones or by fives, from anywhere, modulo 16: the first two tokens tell the rest."""
    draw = np.random.Generator(np.random.Philox(0))
    rows = {}
    for name, by in (("count", 1), ("jump", 5)):
        folder = tmp_path_factory.mktemp(name)
        writer = ShardWriter(folder, vocab_size=40, shard_tokens=2**14, end=32)
        for i in range(400):
            writer.add(f"{i:032x}", (draw.integers(0, 16) + by * np.arange(draw.integers(24, 56))) % 16)
        writer.close()
        rows[name] = Rows(folder, 64)
    return Data(Order(1, {name: len(one) for name, one in rows.items()}, HISTORY), rows, 32)


def begun(objective: Objective) -> State:
    model = make(llama, CONFIG)
    rows = llama.weights(CONFIG)
    if objective.ahead:
        rows = [*rows, *add_ahead(model, rows, objective.ahead)]
    initialise(model, rows, 0.02, 0)
    optimizer = find("optimizer.kinds", "muon").Muon(lr=0.02, adamw_lr=0.01).build(model, rows)
    return State(model, rows, optimizer, 0, 0, HISTORY)


def settings(objective: Objective, model: torch.nn.Module) -> Steps:
    return Steps(
        objective, KNOWN, choose("fp32", "cpu"), documents=True, clip=1.0, z_loss=0.0, micro_batch=16, forward=model
    )


KINDS: dict[str, Callable[[], Objective]] = {
    "next_token": lambda: find("objective.kinds", "next_token").NextToken(),
    "masked": lambda: find("objective.kinds", "masked").Masked(rate=0.3),
    "fill_in_middle": lambda: find("objective.kinds", "fill_in_middle").FillInMiddle(sources=("jump",)),
    "multi_token": lambda: find("objective.kinds", "multi_token").MultiToken(ahead=2),
    "diffusion": lambda: find("objective.kinds", "diffusion").Diffusion(even=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_below_the_entropy_of_the_tokens(kind: str, data: Data) -> None:
    objective = KINDS[kind]()
    state = begun(objective)
    steps = settings(objective, state.model)
    for number in range(90):
        train_step(state, data.batch(16 * number, 16), steps, 1 - number / 90)
    with torch.no_grad():
        ready = objective.prepare(data.batch(16 * 90, 64), KNOWN)
        found = losses(state.model, state.model, objective, ready, documents=True)
    for name, loss in found.items():
        assert float(loss.mean) < (0.5 if objective.causal else 0.85) * UNIGRAM, (name, float(loss.mean))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", ["next_token", "masked", "diffusion"])
def test_only_models_that_are_not_causal_see_what_follows(kind: str, apart: bool, data: Data) -> None:
    objective = KINDS[kind]()
    model, every = begun(objective).model, data.batch(0, 2)
    every = replace(every, documents=np.repeat([[0] * 16 + [1] * 16], 4, 0).astype(np.int32))
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.hidden))
    for shift in (0, 1):
        moved = every.tokens.copy()
        moved[:, 12] = (moved[:, 12] + shift) % 16
        losses(model, model, objective, replace(every, tokens=moved, extra={"scale": every.weights}), documents=apart)
    same = (seen[0] == seen[1]).all(-1).all(0)
    assert bool(same[:12].all()) == objective.causal and bool(same[16:].all()) == apart and not same[12]


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_ranks_prepares_the_same_rows(kind: str, data: Data) -> None:
    """A row of 64 tokens is two samples, and no two samples of a batch share a draw."""
    objective = KINDS[kind]()
    whole = objective.prepare(data.batch(7, 12), KNOWN)
    for ranks in (2, 3, 4):
        for rank in range(ranks):
            part = objective.prepare(data.batch(7, 12, rank, ranks), KNOWN)
            mine = np.isin(whole.rows // 2, np.arange(7 + rank, 19, ranks))
            assert part.sources == tuple(s for s, m in zip(whole.sources, mine, strict=True) if m)
            for name in ("tokens", "targets", "weights", "rows"):
                assert np.array_equal(getattr(part, name), getattr(whole, name)[mine])
    assert len(set(whole.rows.tolist())) == 24
    number = [data.order.sources[s] for s in data.order.at(whole.rows // 2)[0]]
    assert list(whole.sources) == number
