"""What a rank keeps for the backward pass of a Llama, and how long it works, as its sequences are divided.

    OMP_NUM_THREADS=1 python benchmarks/context.py --sequence 8192

One sequence, 4 blocks 256 wide in float32, on gloo processes of one thread. Each line: ranks, the bytes that the rank
with the most of them keeps (weights not counted), and the most and the least CPU time of a rank, forward and backward.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from pretrain.base.extension import find
from pretrain.base.units import show_bytes
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.parallel.apply import Ranks
from pretrain.parallel.context import columns, divide
from pretrain.parallel.layout import Layout
from pretrain.train.recompute import measured

SIZES = dict(vocab_size=1024, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=2)  # fmt: skip


def measure(rank: int, size: int, sequence: int, folder: str) -> None:
    """Of one rank; the first of them prints what all have found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", size), rank=rank, world_size=size)
    ranks, family = Ranks.of(Layout(cp=size), "cpu"), find("model.families", "llama")
    config = family.Config(**SIZES)
    rows = family.weights(config)
    model = make(family, config)
    initialise(model, rows, 0.02, 0)
    if size > 1:
        divide(model, ranks.group("cp"))  # weights stay whole
    own = torch.from_numpy(columns(sequence, rank, size))[None] if size > 1 else torch.arange(sequence)[None]

    def forward(tokens: Tensor) -> Tensor:
        return model(tokens, positions=own).hidden

    kept = measured(model, forward, own % 1024)
    forward(own % 1024).sum().backward()
    before = time.process_time()
    forward(own % 1024).sum().backward()
    found = torch.tensor([kept, time.process_time() - before], dtype=torch.float64)
    every = [torch.empty_like(found) for _ in range(size)]
    dist.all_gather(every, found)
    if ranks.leads:
        (most, longest), (_, shortest) = torch.stack(every).amax(0).tolist(), torch.stack(every).amin(0).tolist()
        print(f"cp {size}: {show_bytes(int(most))}, {longest:.2f} to {shortest:.2f} CPU seconds")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", type=int, default=8192)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments = parser.parse_args()
    for size in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(measure, (size, arguments.sequence, str(Path(folder))), size)


if __name__ == "__main__":
    main()
