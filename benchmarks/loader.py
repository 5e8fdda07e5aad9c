"""Batches of 16 windows of 2,048 tokens from local shards: tokens a CPU-second, start, resume.

    python -m venv A && A/bin/pip install "litdata==0.2.76" torch==2.13.0
    python -m venv B && B/bin/pip install "mosaicml-streaming==0.13.0" torch==2.13.0
    OMP_NUM_THREADS=1 python benchmarks/loader.py --litdata A/bin/python --streaming B/bin/python

The same tokens for all, warm in the page cache, every side shuffled, in a process of its own that is kept on one core;
the sides take turns, and none reads in threads or workers. Ours holds every token against its check and knows its
documents; nanoGPT's windows (written here anew) are drawn at random, with no epochs. Start and resume are from opening
the data to the first batch, imports aside.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BATCH, ROW, VOCAB = 16, 2048, 50_000
PLACES = (0.0, 0.01, 0.5, 0.99)  # of an epoch
SIDES = ("ours", "nanogpt", "litdata", "streaming")


def make(folder: Path, tokens: int) -> None:
    """Documents of 700 tokens on average, as our shards and as one flat file."""
    from pretrain.shards.write import ShardWriter

    draw = np.random.Generator(np.random.Philox(0))
    ends = np.unique(draw.integers(0, tokens, tokens // 700))
    every = draw.integers(1, VOCAB, tokens, dtype=np.uint16)
    every[ends] = 0
    every.tofile(folder / "train.bin")
    writer = ShardWriter(folder / "shards", vocab_size=VOCAB, shard_tokens=2**26, end=0)
    for number, document in enumerate(np.split(every, ends + 1)):
        writer.add(f"{number:032x}", document[:-1])
    writer.close()


def ours(folder: Path, place: float) -> Iterator[int]:
    from pretrain.order.batch import Data
    from pretrain.order.order import History, Order, Segment
    from pretrain.order.pack import Rows

    rows = Rows(folder / "shards", ROW)
    data = Data(Order(0, {"a": len(rows)}, History((Segment(0, {"a": 1.0}, {}),))), {"a": rows}, ROW)
    position = int(len(rows) * place)
    while True:
        yield data.batch(position, BATCH).tokens.size
        position += BATCH


def nanogpt(folder: Path, place: float) -> Iterator[int]:
    import torch

    while True:
        data = np.memmap(folder / "train.bin", np.uint16, "r")
        starts = torch.randint(len(data) - ROW, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + ROW].astype(np.int64)) for i in starts])
        torch.stack([torch.from_numpy(data[i + 1 : i + 1 + ROW].astype(np.int64)) for i in starts])
        yield x.numel()


def measure(open_at: Callable[[Path, float], Iterator[int]], folder: Path, seconds: float) -> dict[str, object]:
    """Tokens a CPU-second over some of them, and seconds to the first batch at each place of an epoch."""
    firsts = []
    for place in (PLACES[0], *PLACES):  # the first time imports what it needs
        start = time.perf_counter()
        batches = open_at(folder, place)
        next(batches)
        firsts.append(time.perf_counter() - start)
        batches.close()  # type: ignore[attr-defined]
    batches, tokens = open_at(folder, 0.0), 0
    next(batches)
    start = time.process_time()
    while time.process_time() < start + seconds:
        tokens += sum(next(batches) for _ in range(20))
    rate = tokens / (time.process_time() - start)
    batches.close()  # type: ignore[attr-defined]
    return {"rate": rate, "firsts": firsts[1:]}


def side(name: str, folder: Path, seconds: float, python: str | None) -> dict[str, object]:
    """A side's figures from a process of its own on one core; for ours and nanoGPT that is this file again."""
    script = (
        [__file__, "--side", name] if python is None else [f"{Path(__file__).parent}/peers/{name}_tokens.py", "read"]
    )
    command = ["taskset", "-c", "0", python or sys.executable, *script]
    done = subprocess.run(
        [*command, str(folder), str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litdata", metavar="PYTHON", help="of a venv that holds litdata")
    parser.add_argument("--streaming", metavar="PYTHON", help="of a venv that holds mosaicml-streaming")
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES[:2], help=argparse.SUPPRESS)
    parser.add_argument("given", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        function = ours if arguments.side == "ours" else nanogpt
        print(json.dumps(measure(function, Path(arguments.given[0]), float(arguments.given[1]))))
        return
    pythons = {"litdata": arguments.litdata, "streaming": arguments.streaming}
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), dict[str, list[dict]]()
        make(folder, arguments.tokens)
        for peer, python in pythons.items():
            if python is None:
                print(f"{peer}: left out, no --{peer} was said")
                continue
            writer = [python, f"{Path(__file__).parent}/peers/{peer}_tokens.py", "write", str(folder)]
            subprocess.run(writer, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(arguments.rounds):
            for one in SIDES:
                if one not in pythons or pythons[one] is not None:
                    found.setdefault(one, []).append(side(one, folder, 2.0, pythons.get(one)))
        print(f"{'':<10} {'Mtoken/s':>9} {'of them':>20}   ms to the first batch at {PLACES} of an epoch")
        for one, results in found.items():
            rates = sorted(result["rate"] / 1e6 for result in results)
            firsts = [statistics.median(times) for times in zip(*(r["firsts"] for r in results), strict=True)]
            each = " ".join(f"{rate:.0f}" for rate in rates)
            print(
                f"{one:<10} {statistics.median(rates):>9.0f} {each:>20}   {' '.join(f'{1000 * f:.1f}' for f in firsts)}"
            )


if __name__ == "__main__":
    main()
