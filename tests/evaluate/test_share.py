"""Twin: what ranks score together is what one process scores, whatever the layout and the number of batches."""

import numpy as np
import pytest

from parallel.test_apply import MODELS
from pretrain.base.extension import find
from pretrain.evaluate import held_out, perplexity
from pretrain.evaluate.share import shared
from pretrain.model.folder import make, materialise, shell
from pretrain.model.weights import initialise
from pretrain.order.vocabulary import vocabulary
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.tokenizer.bpe import train
from ranks import ranks

MUTANTS = [
    ("src/pretrain/evaluate/share.py", 'ranks.place("replicate") * each +', "each +"),
    ("src/pretrain/evaluate/share.py", "place < len(group)", "True"),
    ("src/pretrain/evaluate/share.py", ' and ranks.place("ep") == 0', ""),
    ("src/pretrain/evaluate/perplexity.py", "_nats(model, batch) * counts", "_nats(model, batch)"),
    ("src/pretrain/evaluate/held_out.py", "float(loss.count) * ours", "float(loss.count)"),
    ("src/pretrain/evaluate/held_out.py", "float(loss.total) * ours", "float(loss.total)"),
]
TEXTS = [f"{number} sheep, {'and one more, ' * (number % 7)}sleep" for number in range(30)]
TOKENIZER = train(TEXTS, 280, reserved=20)
VOCABULARY = vocabulary(TOKENIZER, TOKENIZER.vocab_size)


def scores(family: str, layout: Layout, rows: int) -> dict[str, float]:
    """Of a drawn model; windows of `rows` a pass."""
    module = find("model.families", family)
    config = module.Config(**{**MODELS[family], "vocab_size": TOKENIZER.vocab_size})
    table, on = module.weights(config), Ranks.of(layout, "cpu")
    if on.alone:
        model = make(module, config).double()
        initialise(model, table, 0.3, 0)
    else:
        model = shell(module, config).double()
        left = on.apply(model, table, config.axes())
        materialise(model, left, "cpu")
        on.draw(model, left, config.axes(), 0.3, 0)
    perplexity.ROWS = held_out.ROWS = rows
    if getattr(module, "CAUSAL", True):
        found = perplexity.likelihood(model, TOKENIZER, TEXTS, sequence=16, ranks=on)
        return {"nats": found.nats, "tokens": found.tokens, "bytes": found.bytes, "documents": found.documents}
    objective = find("objective.kinds", "masked").Masked()
    documents = [np.array([*TOKENIZER.encode(text), TOKENIZER.end]) for text in TEXTS]
    return held_out.held_out_loss(model, objective, VOCABULARY, documents, sequence=16, seed=1, apart=True, ranks=on)


@ranks(4)
def test_ranks_score_what_one_process_scores() -> None:
    for family, layouts in {
        "llama": [Layout(replicate=2, shard=2), Layout(cp=2, tp=2), Layout(pp=2, shard=2)],
        "mixtral": [Layout(shard=4, ep=2)],
        "bert": [Layout(replicate=4), Layout(pp=2, tp=2)],
    }.items():
        for rows in (16, 60):  # of few batches, some ranks have none
            one = scores(family, Layout(), rows)
            for layout in layouts:
                assert scores(family, layout, rows) == pytest.approx(one, rel=1e-12), (family, layout)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7])
def test_every_batch_counts_once_and_ranks_take_equally_many(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(replicate=3, shard=4, ep=2)
    every = []
    for place in range(12):
        at = {"replicate": place // 4, "expert_shard": place // 2 % 2, "ep": place % 2}
        monkeypatch.setattr(Ranks, "place", lambda self, name, at=at: at[name])
        every.append(list(shared(range(count), Ranks(layout))))
    assert len({len(one) for one in every}) == 1
    assert sorted(batch for one in every for batch, counts in one if counts) == list(range(count))
