"""Closed form: documents packed in a row are learned from as if each stood alone; waiting for data is said once."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain.base.extension import find
from pretrain.events.kinds import Event, Notice
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.objective.cross_entropy import token_logprobs
from pretrain.order.batch import Batch, Data, Vocabulary
from pretrain.order.best_fit import table_name, write_table
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import Policy
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import WAIT_STEPS, Waits
from pretrain.train.step import Steps, losses, sum_of

MUTANTS = [
    ("src/pretrain/objective/objective.py", 'asked |= {"documents"', 'asked |= {} and {"documents"'),
    ("src/pretrain/train/loop.py", "share >= WAIT_SHARE", "share >= 0"),
    (
        "src/pretrain/train/loop.py",
        "self._loader.waited - self._before, self._loader",
        "self._loader.waited, self._loader",
    ),
    ("src/pretrain/train/step.py", "max(steps.sequence // batch.documents.shape[1], 1)", "1"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """All rows of documents of 3 to 30 tokens in rows of 16."""
    draw = np.random.Generator(np.random.Philox(5))
    writer = ShardWriter(tmp_path, vocab_size=64, shard_tokens=10**6, end=0)
    for i, length in enumerate((3, 9, 30, 5, 5, 12, 20, 4)):
        writer.add(f"{i:032x}", draw.integers(1, 64, length))
    writer.close()
    (entry,) = Catalogue.load(tmp_path).shards
    write_table(Shard(tmp_path / entry.name), 16, (tmp_path / table_name(16) / entry.name).with_suffix(".npy"))
    rows = Rows(tmp_path, 16, "best_fit")
    order = Order(0, {"a": len(rows)}, History((Segment(0, {"a": 1.0}, {}),)))
    return Data(order, {"a": rows}, 16, apart=True).batch(0, len(rows))


def steps(forward: object, **more: object) -> Steps:
    objective = find("objective.kinds", "next_token").NextToken()
    policy = Policy(torch.float32, "cpu")
    settings = {"documents": True, "clip": 1.0, "z_loss": 0.0, "micro_batch": 2} | more
    return Steps(objective, Vocabulary(64), policy, forward=forward, **settings)  # type: ignore[arg-type]


@torch.no_grad()
def test_packed_documents_are_learned_from_as_if_alone(batch: Batch) -> None:
    model = make(llama, CONFIG).double()
    initialise(model, llama.weights(CONFIG), 0.3, 0)
    found = float(sum_of(losses(model, batch, steps(model))))
    alone = 0.0
    for tokens, targets, documents, weights in zip(
        batch.tokens, batch.targets, batch.documents, batch.weights, strict=True
    ):
        for one in np.unique(documents):
            here = documents == one
            hidden = model(torch.from_numpy(tokens[here])[None]).hidden
            scores = token_logprobs(model.get_submodule("head")(hidden), torch.from_numpy(targets[here])[None])
            alone -= float((scores[0] * torch.from_numpy(weights[here])).sum())
    assert found == pytest.approx(alone, rel=1e-9)


def test_the_model_is_told_where_each_token_stands_in_its_document(batch: Batch) -> None:
    told: dict[str, torch.Tensor] = {}
    model = make(llama, CONFIG)

    def forward(tokens: torch.Tensor, **where: torch.Tensor) -> object:
        told.update(where)
        return model(tokens, **where)

    losses(model, batch, steps(forward))
    for documents, positions in zip(batch.documents.tolist(), told["positions"].tolist(), strict=True):
        assert positions == [k - documents.index(one) for k, one in enumerate(documents)]
    losses(model, batch, steps(lambda tokens: model(tokens), documents=False))


def test_a_micro_batch_of_short_sequences_holds_as_many_tokens() -> None:
    from pretrain.checkpoint.state import State
    from pretrain.train.step import train_step

    model, seen = make(llama, CONFIG), list[tuple[int, ...]]()
    initialise(model, llama.weights(CONFIG), 0.1, 0)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, llama.weights(CONFIG))
    state = State(model, llama.weights(CONFIG), optimizer, 0, 0, History((Segment(0, {"a": 1.0}, {}),)))

    def forward(tokens: torch.Tensor) -> object:
        seen.append(tuple(tokens.shape))
        return model(tokens)

    for length in (16, 4):
        shape = (128 // length, length)
        tokens = np.ones(shape, np.int64)
        some = Batch(tokens, tokens, np.ones(shape, np.float32), tokens, np.arange(len(tokens)), tokens[..., None])
        train_step(state, some, steps(forward, documents=False, sequence=16), 1.0)
    assert seen == [(2, 16)] * 4 + [(8, 4)] * 4


def test_waiting_for_data_is_said_once_with_its_share() -> None:
    told: list[Event] = []
    loader = SimpleNamespace(waited=0.0)
    waits = Waits(loader, 1000, told.append)  # type: ignore[arg-type]
    assert waits.share(10, 10.0) == 0.0
    loader.waited = 1.5
    assert waits.share(10, 10.0) == pytest.approx(0.15) and not told, "much of the last ten, less of all twenty"
    for _ in range(2 * WAIT_STEPS):
        loader.waited += 0.25
        assert waits.share(1, 1.0) == pytest.approx(0.25)
    (notice,) = told
    assert isinstance(notice, Notice) and notice.level == "warning"
    assert notice.text.startswith(
        "25% of the last 20 steps was waiting for data, which comes at 1.00k tokens/s: a faster"
    )
    loader.waited += 5
    assert waits.share(0, 0.0) == 0.0 and waits.share(1, 1.0) == 0.0, "what callbacks take is no step's"
