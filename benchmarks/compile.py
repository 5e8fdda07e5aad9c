"""What torch.compile costs and saves here: steps of a Llama, eager beside compiled, turn by turn in one process.

python benchmarks/compile.py --width 192 --layers 4 --sequence 256 --batch 4096
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.precision.policy import choose
from pretrain.train.step import Steps, train_step

VOCAB = 2304


class RandomRows:
    """As many rows of random tokens as are asked for; none is a document's end."""

    def __init__(self, row: int) -> None:
        self.row, self.rows = row, np.random.Generator(np.random.Philox(0)).integers(1, VOCAB, (256, row + 1))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[index], np.zeros(self.row + 1, np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 192), ("layers", 4), ("sequence", 256), ("batch", 4096), ("pairs", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    llama = find("model.families", "llama")
    config = llama.Config(
        vocab_size=VOCAB, hidden_size=a.width, intermediate_size=a.width * 8 // 3, num_hidden_layers=a.layers,
        num_attention_heads=a.width // 64, num_key_value_heads=a.width // 64,
    )  # fmt: skip
    history = History((Segment(0, {"random": 1.0}, {}),))
    rows = RandomRows(a.sequence)
    data = Data(Order(0, {"random": len(rows)}, history), {"random": rows}, a.sequence)  # type: ignore[dict-item]

    def side(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], float]:
        model = make(llama, config)
        initialise(model, llama.weights(config), 0.02, 0)
        optimizer = find("optimizer.kinds", "muon").Muon().build(model, llama.weights(config))
        state = State(model, llama.weights(config), optimizer, 0, 0, history)
        steps = Steps(
            find("objective.kinds", "next_token").NextToken(), Vocabulary(VOCAB), choose("auto", "cpu"),
            documents=False, clip=1.0, z_loss=0.0, micro_batch=a.batch // a.sequence, forward=wrap(model),
        )  # fmt: skip
        batch = data.batch(0, a.batch // a.sequence)

        def step() -> float:
            start = time.perf_counter()
            float(train_step(state, batch, steps, 0.1).loss)
            return time.perf_counter() - start

        return step

    eager, compiled = side(lambda model: model), side(torch.compile)  # type: ignore[arg-type]
    first = compiled()
    pairs = np.array([(eager(), compiled()) for _ in range(a.pairs + 2)][2:])
    one, other = np.median(pairs, 0)
    print(f"eager {one:.3f} s a step, compiled {other:.3f}: ratio {one / other:.3f}; first compiled step {first:.1f} s")
    if one > other:
        print(f"compiling is paid back after {first / (one - other):,.0f} steps, {first / (one - other) * one:,.0f} s")


if __name__ == "__main__":
    main()
