"""What the training loop costs: CPU time of bare forward, backward and AdamW in a hand-written loop, over ours.

A 10M-parameter Llama at sequence length 512. Blocks of 10 steps of each side alternate in one process on one thread;
the figure is the median ratio of the blocks' CPU times with its 95 % bootstrap interval. The aim is 0.97 or more.
With `--ranks 2`, both sides are under FSDP2 on that many gloo processes, whose CPU times are added up.

    OMP_NUM_THREADS=1 python benchmarks/loop.py --pairs 40
    OMP_NUM_THREADS=1 python benchmarks/loop.py --pairs 40 --ranks 2
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from pretrain.base.extension import find
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.batch import Data, Vocabulary
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from pretrain.precision.policy import choose
from pretrain.recipe.schema import Leaf
from pretrain.recipe.train import Schedule, Train
from pretrain.shards.write import ShardWriter
from pretrain.train.loop import Place, train
from pretrain.train.step import Steps

BLOCK, SEQUENCE, VOCAB = 10, 512, 8192


def random_rows(folder: Path, rows: int, sequence: int = SEQUENCE, vocab: int = VOCAB) -> Rows:
    """Shards of random tokens."""
    draw = np.random.Generator(np.random.Philox(0))
    writer = ShardWriter(folder, vocab_size=vocab, shard_tokens=2**22, end=0)
    for i in range(rows + 1):
        writer.add(f"{i:032x}", draw.integers(1, vocab, sequence - 1))
    writer.close()
    return Rows(folder, sequence)


def side_by_side(rank: int, arguments: argparse.Namespace, folder: Path) -> None:
    """Blocks of ours and of the bare loop in turns; the leading rank prints the ratio."""
    torch.set_num_threads(1)
    ranks = Ranks()
    if arguments.ranks > 1:
        store = dist.FileStore(str(folder / "store"), arguments.ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=arguments.ranks)
        ranks = Ranks.of(Layout(shard=arguments.ranks), "cpu")
    llama = find("model.families", "llama")
    config = llama.Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    table, axes = llama.weights(config), config.axes()
    model = make(llama, config)
    initialise(model, table, 0.02, 0)
    bare = copy.deepcopy(model)
    if arguments.ranks > 1:
        for module in (*bare.blocks, bare):
            fully_shard(module)
    ranks.apply(model, table, axes)
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

    def seconds() -> float:
        used = torch.tensor(time.process_time(), dtype=torch.float64)
        if arguments.ranks > 1:
            dist.all_reduce(used)
        return float(used)

    ratios: list[float] = []
    rows = random_rows(folder / f"tokens{rank}", 4096)
    history = History((Segment(0, {"random": 1.0}, {}),))
    data = Data(Order(0, {"random": len(rows)}, history), {"random": rows}, SEQUENCE)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, table)
    state = State(model, table, optimizer, 0, 0, history, axes, ranks)
    steps = Steps(
        find("objective.kinds", "next_token").NextToken(), Vocabulary(VOCAB), policy, documents=False, clip=1.0,
        z_loss=0.0, micro_batch=arguments.samples, forward=model, ranks=ranks,
    )  # fmt: skip
    section = Train(
        optimizer=Leaf(("optimizer.kinds",), "adamw"),
        schedule=Schedule("constant", warmup=0.0),
        batch=arguments.samples * SEQUENCE * arguments.ranks,
        sequence=SEQUENCE,
        checkpoint_every=0,
    )
    clock = seconds()

    def other_side(state: State) -> None:
        nonlocal clock
        ours = seconds() - clock
        start = seconds()
        for _ in range(BLOCK):
            bare_step()
        ratios.append((seconds() - start) / ours)
        clock = seconds()

    place = Place(folder / "checkpoints", "", lambda event: None, 1.0, 1.0)
    train(state, data, section, BLOCK * (arguments.pairs + 2), steps, place, [(BLOCK, other_side)])
    counted = np.array(ratios[2:])
    draw = np.random.Generator(np.random.Philox(1))
    medians = np.median(draw.choice(counted, (2000, len(counted))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    if ranks.leads:
        what = f"bare / ours, CPU time of {arguments.ranks} ranks"
        print(f"{what}: {np.median(counted):.3f}, 95 % in [{low:.3f}, {high:.3f}], {len(counted)} pairs")
    if arguments.ranks > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=1, help="sequences in a step of a rank")
    parser.add_argument("--ranks", type=int, default=1, help="gloo processes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.ranks == 1:
            side_by_side(0, arguments, Path(folder))
        else:
            multiprocessing.spawn(side_by_side, (arguments, Path(folder)), arguments.ranks)


if __name__ == "__main__":
    main()
