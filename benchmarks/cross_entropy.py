"""Memory and time of the chunked cross-entropy beside torch's plain one at vocabulary 128,256, a process each.

OMP_NUM_THREADS=1 python benchmarks/cross_entropy.py [--width 512]
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional

from pretrain.objective.cross_entropy import cross_entropy

VOCAB = 128_256


def measure(which: str, tokens: int, width: int) -> None:
    """Prints the growth of the peak in MiB and the seconds of forward and backward."""
    torch.manual_seed(0)
    hidden, head = torch.randn(1, tokens, width, requires_grad=True), nn.Linear(width, VOCAB, bias=False)
    targets, weights = torch.randint(0, VOCAB, (1, tokens)), torch.ones(1, tokens)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if which == "plain":
        loss = functional.cross_entropy(head(hidden)[0], targets[0], reduction="sum")
    else:
        loss = cross_entropy(hidden, head, targets, weights, z_loss=1e-4 if which == "z-loss" else 0.0).total
    loss.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{(peak - before) / 1024:.0f} {time.process_time() - start:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        return measure(arguments.one[0], int(arguments.one[1]), arguments.width)
    for tokens in (512, 1024, 2048, 4096):
        for which in ("plain", "chunked", "z-loss"):
            command = [sys.executable, __file__, "--width", str(arguments.width), "--one", which, str(tokens)]
            mib, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"{tokens:>5} tokens, {which:<8} {int(mib):>6,} MiB, {float(seconds):>5.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()
