"""Trains a model of your own (here a GRU) on token shards: `python examples/loop.py store/tokens-… [STEPS]`.

The order of the data, the batches and the step are pretrain's; the model is any `nn.Module` with a `head`, whose
`forward` takes tokens and gives hidden states.
"""

import sys
from pathlib import Path

from torch import Tensor, nn

from pretrain.checkpoint.state import State
from pretrain.model.weights import Weight
from pretrain.objective.kinds.next_token import NextToken
from pretrain.optimizer.kinds.adamw import AdamW
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import choose
from pretrain.train.step import Steps, train_step

SEQUENCE, BATCH = 128, 16  # tokens in a row, rows in a step


class Recurrent(nn.Module):
    """Embedding, two layers of GRU, head."""

    def __init__(self, vocab: int, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.GRU(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> tuple[Tensor, None]:
        """tokens [batch, seq] -> hidden [batch, seq, width]; the second is for losses of the model's own."""
        return self.blocks(self.embed(tokens))[0], None


def rows_of(model: nn.Module) -> list[Weight]:
    """What each parameter is, which is all that an optimizer asks: of the vocabulary, a matrix or a vector."""
    table = []
    for name, parameter in model.named_parameters():
        axes = "vocab embed" if name.startswith(("embed", "head")) else "out in" if parameter.ndim == 2 else "out"
        table.append(Weight(name, name, axes))
    return table


def main(folder: Path, steps: int = 200) -> list[float]:
    """The loss of every step, in nats a token."""
    data = {"mine": Rows(folder, SEQUENCE)}
    history = History((Segment(0, {"mine": 1.0}, {}),))
    order = Order(seed=0, rows={name: len(rows) for name, rows in data.items()}, history=history)
    source = Data(order, data, SEQUENCE)

    vocab = 1 + max(int(data["mine"].read(row)[0].max()) for row in range(len(data["mine"])))
    model = Recurrent(vocab)
    table = rows_of(model)
    state = State(model, table, AdamW(lr=3e-3).build(model, table), 0, 0, history)
    settings = Steps(NextToken(), Vocabulary(vocab), choose("fp32", "cpu"), False, 1.0, 0.0, BATCH, model)

    losses = []
    while state.step < steps:
        result = train_step(state, source.batch(state.position, BATCH), settings, scale=1.0)
        state.step, state.position = state.step + 1, state.position + BATCH
        losses.append(float(result.loss))
        if state.step % 20 == 0:
            print(f"step {state.step}: {losses[-1]:.3f} nats a token")
    return losses


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
