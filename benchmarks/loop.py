"""What the training loop costs: CPU time of bare forward, backward and AdamW in a hand-written loop, over ours.

A 10M-parameter Llama at sequence length 512. Blocks of 10 steps of each side alternate in one process on one thread;
the figure is the median ratio of the blocks' CPU times with its 95 % bootstrap interval. The aim is 0.97 or more.

    OMP_NUM_THREADS=1 python benchmarks/loop.py --pairs 40
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.precision.policy import choose
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Schedule, Train
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import Place, train
from pretrain.train.step import Steps

BLOCK, SEQUENCE, VOCAB = 10, 512, 8192


def random_rows(folder: Path, rows: int) -> Rows:
    """Shards of random tokens."""
    draw = np.random.Generator(np.random.Philox(0))
    writer = ShardWriter(folder, vocab_size=VOCAB, shard_tokens=2**22, end=0)
    for i in range(rows + 1):
        writer.add(f"{i:032x}", draw.integers(1, VOCAB, SEQUENCE - 1))
    writer.close()
    return Rows(folder, SEQUENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=1, help="sequences in a step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    llama = find("model.families", "llama")
    config = llama.Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = make(llama, config)
    initialise(model, llama.weights(config), 0.02, 0)
    bare = copy.deepcopy(model)
    adamw = torch.optim.AdamW(bare.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    policy = choose("auto", "cpu")

    def bare_step() -> None:
        tokens = torch.randint(0, VOCAB, (arguments.samples, SEQUENCE + 1))
        with policy.autocast():
            logits = bare.head(bare(tokens[:, :-1]).hidden)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = random_rows(Path(folder) / "tokens", 4096)
        history = History((Segment(0, {"random": 1.0}, {}),))
        data = Data(Order(0, {"random": len(rows)}, history), {"random": rows}, SEQUENCE)
        optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, llama.weights(config))
        state = State(model, llama.weights(config), optimizer, 0, 0, history)
        steps = Steps(
            find("objective.kinds", "next_token").NextToken(), Vocabulary(VOCAB), policy,
            documents=False, clip=1.0, z_loss=0.0, micro_batch=arguments.samples, forward=model,
        )  # fmt: skip
        section = Train(
            optimizer=Leaf(("optimizer.kinds",), "adamw"),
            schedule=Schedule("constant", warmup=0.0),
            batch=arguments.samples * SEQUENCE,
            sequence=SEQUENCE,
            checkpoint_every=0,
        )
        clock = time.process_time()

        def other_side(state: State) -> None:
            nonlocal clock
            ours = time.process_time() - clock
            start = time.process_time()
            for _ in range(BLOCK):
                bare_step()
            ratios.append((time.process_time() - start) / ours)
            clock = time.process_time()

        place = Place(Path(folder) / "checkpoints", "", lambda event: None, 1.0, 1.0)
        train(state, data, section, BLOCK * (arguments.pairs + 2), steps, place, [(BLOCK, other_side)])
    counted = np.array(ratios[2:])
    draw = np.random.Generator(np.random.Philox(1))
    medians = np.median(draw.choice(counted, (2000, len(counted))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    print(f"bare / ours, CPU time: {np.median(counted):.3f}, 95 % in [{low:.3f}, {high:.3f}], {len(counted)} pairs")


if __name__ == "__main__":
    main()
