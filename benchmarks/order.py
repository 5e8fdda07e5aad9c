"""What the order of a run costs at 15 trillion tokens: a simulated corpus, its sizes only, on one core.

100,000 shards in 40 sources with shares down to one in a million, rows of 2,048 tokens, three mixtures (the middle one
reached in a straight line) and a cap of four epochs. Opening and memory are of a process of its own, which reads the
catalogues, lays the mixtures out and asks for one batch. The places of a batch of 1,024 rows are (shard, first token).
The aims: opened in 2 s and 200 MB, 20 µs a row at any position, no row twice in an epoch and none left out.

    OMP_NUM_THREADS=1 python benchmarks/order.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pretrain.order.order import History, Order
from pretrain.order.pack import Rows
from pretrain.order.phases import changes, from_position, lay_out
from pretrain.recipe.train import Phase
from pretrain.shards.catalogue import Catalogue, Entry
from pretrain.shards.write import write_catalogue

TOKENS, SHARDS, SOURCES, ROW, BATCH = 15 * 10**12, 100_000, 40, 2048, 1024
LENGTH = TOKENS // ROW  # rows of the run


def shares() -> np.ndarray:
    """float64 [SOURCES] from 0.27 down to one in a million."""
    falling = 10 ** -np.linspace(0, 5.43, SOURCES)
    return falling / falling.sum()


def simulate(folder: Path) -> None:
    """A catalogue for each source: shards of about 150 million tokens, of which not one is written."""
    draw = np.random.Generator(np.random.Philox(0))
    counts = np.maximum((shares() ** 0.7 / (shares() ** 0.7).sum() * SHARDS).astype(int), 1)
    counts[0] += SHARDS - counts.sum()
    for i, count in enumerate(counts.tolist()):
        sizes = draw.integers(TOKENS // SHARDS // 2, TOKENS // SHARDS * 3 // 2, count).tolist()
        names = [f"{i:016x}{k:016x}" for k in range(count)]
        (folder / f"s{i:02}").mkdir()
        entries = tuple(
            Entry(f"{name}.shard", size, size // 800, name) for name, size in zip(names, sizes, strict=True)
        )
        write_catalogue(Catalogue(folder / f"s{i:02}", "uint32", 128_000, "", None, entries))


def opened(folder: Path) -> tuple[Order, dict[str, Rows]]:
    """The order of the run, and the rows of its sources."""
    rows = {path.name: Rows(path, ROW) for path in sorted(folder.iterdir())}
    names, one = sorted(rows), shares()
    first = dict(zip(names, one.tolist(), strict=True))
    later = dict(zip(names, (one**0.9 / (one**0.9).sum()).tolist(), strict=True))
    last = {**later, names[0]: 0.0, names[5]: 0.3}
    phases = [Phase(0.4, later, over=0.2), Phase(0.9, last)]
    every = from_position(changes(first, phases, lambda share: round(LENGTH * share)), 0)
    order = Order(17, {name: len(one) for name, one in rows.items()}, History(()))
    most = {name: 4 * count for name, count in order.rows.items()}
    return Order(17, order.rows, lay_out(order, every, LENGTH, most, "")), rows


def places(order: Order, firsts: list[np.ndarray], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shard and first token of rows, int64 [n] each."""
    source, _, row = order.at(positions)
    shard, start = np.empty_like(row), np.empty_like(row)
    for one in np.unique(source):
        here = source == one
        shard[here] = np.searchsorted(firsts[one], row[here], "right") - 1
        start[here] = (row[here] - firsts[one][shard[here]]) * ROW
    return shard, start


def open_alone(folder: Path) -> None:
    """Opens, asks for a batch in the middle and prints seconds and bytes."""
    start = time.perf_counter()
    order, _ = opened(folder)
    seconds = time.perf_counter() - start
    order.at(np.arange(LENGTH // 2, LENGTH // 2 + BATCH))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"seconds": seconds, "bytes": peak, "segments": len(order.history.segments)}))


def visited_once(order: Order, length: int) -> bool:
    """Whether the first `length` rows hold no row twice in an epoch, and leave none out before the next."""
    visits: dict[str, list[np.ndarray]] = {name: [] for name in order.sources}
    for low in range(0, length, 2**16):
        source, epoch, row = order.at(np.arange(low, min(low + 2**16, length)))
        for i, name in enumerate(order.sources):
            visits[name].append(epoch[source == i] * order.rows[name] + row[source == i])
    for name, parts in visits.items():
        every = np.concatenate(parts)
        counts = np.bincount(every, minlength=1)
        if counts.max() > 1 or not counts[: len(every) // order.rows[name] * order.rows[name]].all():
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows whose epochs are looked through")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        return open_alone(arguments.open)
    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name))
        command = [sys.executable, __file__, "--open", name]
        alone = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        print(f"opened in {alone['seconds']:.2f} s, {alone['bytes'] / 2**20:.0f} MiB at most, with torch-free imports")
        print(f"history: {alone['segments']} segments")
        order, rows = opened(Path(name))
        counts = [[max(one.tokens - 1, 0) // ROW for one in rows[source].catalogue.shards] for source in order.sources]
        firsts = [np.cumsum([0, *some]) for some in counts]
    for share in (0.0, 0.25, 0.5, 0.75, 0.999):
        seconds = []
        for batch in range(40):
            low = int(LENGTH * share) + batch * BATCH
            start = time.process_time()
            places(order, firsts, np.arange(low, low + BATCH))
            seconds.append(time.process_time() - start)
        first, rest = seconds[0] / BATCH * 1e6, np.median(seconds) / BATCH * 1e6
        print(f"places at {share:.1%} of the run: {rest:.1f} µs a row, {first:.1f} in the first batch there")
    small = {source: max(size // 2000, 3) for source, size in order.rows.items()}  # so that epochs end
    weights = dict(zip(order.sources, shares().tolist(), strict=True))
    short = Order(17, small, Order(17, small, History(())).changed(0, weights, ""))
    start = time.process_time()
    verdict = "each once an epoch, none left out" if visited_once(short, arguments.rows) else "NOT each once an epoch"
    print(f"{arguments.rows:,} rows: {verdict}, {(time.process_time() - start) / arguments.rows * 1e6:.2f} µs a row")


if __name__ == "__main__":
    main()
