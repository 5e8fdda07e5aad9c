"""Each device beside its neighbours before a run: products, memory and links; what is slow or wrong is named.

A device that computes wrongly seldom says so (Hochschild et al. 2021, "Cores that don't count"; Dubey et al. 2024,
arXiv 2407.21783, table 5), hence answers that are known: integers so small that every sum of them is exact.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.base.units import show_bytes, show_flops

SLOW = 0.8  # of the median, below which a figure is no noise
LATE = 0.4  # the same of a round trip, which is
TILE = 256  # rows and columns whose product is known; larger ones repeat it
SECONDS = 0.3  # for each of products and copies
ROUND_TRIPS, SWAPS = 50, 20  # the best of so many counts: what else goes on only slows
NAME_BYTES = 64

Operation = Callable[[Tensor, Tensor], Tensor]
Swap = Callable[[Tensor, Tensor, int], None]  # sends the first to a rank while the second comes from it


@dataclass(frozen=True)
class Figures:
    """What one rank measured, no number where there was nothing to measure; and how many answers were wrong."""

    host: str
    device: str
    matmul: float  # FLOP/s
    memory: float  # bytes/s, read and written
    link: float  # bytes/s, to the next rank and from it at once
    latency: float  # seconds, there and back
    across: float = math.nan  # bytes/s, to the same place on the next host
    wrong_products: int = 0
    wrong_memory: int = 0
    wrong_link: int = 0
    wrong_sums: int = 0

    @property
    def place(self) -> tuple[str, str]:
        """Names the device among all."""
        return self.host, self.device


@dataclass(frozen=True)
class Measure:
    """How a field of `Figures` is judged and shown."""

    name: str
    show: Callable[[float], str]
    least: float  # of what is usual, below which it is slow
    to: Literal["", "next", "across"] = ""  # of a link: its other end, the next rank or the same place on the next host
    late: bool = False  # seconds, of which fewer are better

    def slow(self, values: dict[int, float]) -> dict[int, float]:
        """The ranks whose values are worse than noise, and what is usual: the median; of two, the better one."""
        if len(values) < 2:
            return {}
        speeds = {rank: 1 / value if self.late else value for rank, value in values.items()}
        usual = max(speeds.values()) if len(speeds) == 2 else statistics.median(speeds.values())
        return {rank: 1 / usual if self.late else usual for rank, x in speeds.items() if x < self.least * usual}


def _rate(value: float) -> str:
    return f"{show_bytes(value)}/s"


def _short(value: float) -> str:
    return f"{value * 1e6:.0f} µs"


MEASURES = (
    Measure("matmul", show_flops, SLOW),
    Measure("memory", _rate, SLOW),
    Measure("link", _rate, SLOW, "next"),
    Measure("latency", _short, LATE, "next", late=True),
    Measure("across", _rate, SLOW, "across"),
)
WRONG = {
    "wrong_products": "matmul",
    "wrong_memory": "memory",
    "wrong_link": "messages from its neighbours",
    "wrong_sums": "sum over all ranks",
}


@dataclass(frozen=True)
class Finding:
    """What is wrong or slow, where, and by how much."""

    rank: int
    hosts: tuple[str, ...]  # its own, and that of a link's other end
    device: str
    what: str
    state: Literal["slow", "wrong"]
    value: float  # the figure, or how many answers were wrong
    usual: float  # the median of its like; of two, the better one
    said: str  # in words

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.hosts[0]}, {self.device}): {self.what}: {self.said}"


def measure(
    host: str,
    device: str,
    dtype: torch.dtype,
    each: int = 1,
    *,
    product: Operation = torch.matmul,
    swap: Swap | None = None,
) -> list[Figures]:
    """The figures of all ranks, `each` on a host, taken by all at the same time. Takes some seconds."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    wait = dist.barrier if ranks > 1 else lambda: None
    wait()
    matmul, wrong_products = products(device, dtype, product)
    wait()
    memory, wrong_memory = copies(device)
    wait()
    link, latency, wrong_link = links(rank, rounds(ranks), device, swap or swapped)
    across = math.nan
    if 1 < each < ranks and ranks % each == 0:
        across, _, further = links(rank, rounds(ranks, each), device, swap or swapped)
        wrong_link += further
    wrong_sums = sums(rank, ranks, device) if ranks > 1 else 0
    name = f"{device}:{torch.cuda.current_device()}" if device == "cuda" else device
    wrong = (wrong_products, wrong_memory, wrong_link, wrong_sums)
    return gathered(Figures(host, name, matmul, memory, link, latency, across, *wrong), device)


def products(device: str, dtype: torch.dtype, product: Operation) -> tuple[float, int]:
    """FLOP/s of square products, and how many of their entries were wrong.

    With at most 128 entries of ±1 in a column and ±2 beside them, no sum is beyond 256: exact in bfloat16.
    """
    n = 8192 if device == "cuda" else 512
    i, k, j = torch.arange(TILE)[:, None], torch.arange(n), torch.arange(TILE)
    a = ((7 * i + 13 * k + i * k) % 5 - 2).double()
    b = torch.where((k[:, None] + 7 * j) % (n // 128) == 0, 1 - 2 * ((3 * k[:, None] + j) // 5 % 2), 0).double()
    known = (a @ b).to(device, dtype)[None, :, None, :]
    left, right = a.to(device, dtype).repeat(n // TILE, 1), b.to(device, dtype).repeat(1, n // TILE)
    wrong = torch.zeros((), dtype=torch.int64, device=device)

    def check(out: Tensor) -> None:
        wrong.add_((out.view(n // TILE, TILE, n // TILE, TILE) != known).sum())

    seconds = best(lambda: product(left, right), device, check)
    return 2 * n**3 / seconds, int(wrong)


def copies(device: str, copy: Operation = Tensor.copy_) -> tuple[float, int]:
    """Bytes/s read and written by a copy, and how many words of a block did not keep a pattern, nor its opposite."""
    words = torch.arange(2**26 if device == "cuda" else 2**24, dtype=torch.int32, device=device) * 0x01000193
    other, wrong = torch.empty_like(words), 0
    seconds = best(lambda: copy(other, words), device)
    for pattern in (words, ~words):
        copy(other, pattern)
        wrong += int((other != pattern).sum())
    return 2 * words.nbytes / seconds, wrong


def best(action: Callable[[], Tensor], device: str, check: Callable[[Tensor], None] = lambda out: None) -> float:
    """Seconds of the fastest of many, after one to warm up; what comes out of each is checked."""
    check(action())
    least, end = math.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end or least == math.inf:
        settle(device)
        start = time.perf_counter()
        out = action()
        settle(device)
        least = min(least, time.perf_counter() - start)
        check(out)
    return least


def settle(device: str) -> None:
    """Waits until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def links(rank: int, meetings: list[list[tuple[int, int]]], device: str, swap: Swap) -> tuple[float, float, int]:
    """Bytes/s and the seconds of a round trip between this rank and the next, and how many words arrived wrong."""
    words, link, latency, wrong = 2**24 if device == "cuda" else 2**19, math.nan, math.nan, 0
    for pairs in meetings:
        dist.barrier()
        pair = next((pair for pair in pairs if rank in pair), None)
        if pair is None:
            continue
        peer = pair[1] if rank == pair[0] else pair[0]
        own, expected = (torch.arange(words, dtype=torch.int32, device=device) * 31 + one for one in (rank, peer))
        into = torch.zeros_like(own)
        quick = min(_timed(lambda: swap(own[:2], into[:2], peer), device) for _ in range(ROUND_TRIPS))  # noqa: B023
        long = min(_timed(lambda: swap(own, into, peer), device) for _ in range(SWAPS))  # noqa: B023
        wrong += int((into != expected).sum())
        if rank == pair[0]:
            link, latency = own.nbytes / long, quick
    return link, latency, wrong


def rounds(ranks: int, step: int = 1) -> list[list[tuple[int, int]]]:
    """Neighbours (rank, next) on the rings of every `step`-th rank, in two rounds, or three where a ring is odd: no
    rank twice in one."""
    size = ranks // step
    ring = [(one, (one + 1) % size) for one in range(size if size > 2 else size - 1)]
    last = [ring.pop()] if len(ring) % 2 and len(ring) > 1 else []
    some = [pairs for pairs in (ring[::2], ring[1::2], last) if pairs]
    return [[(one * step + i, other * step + i) for one, other in pairs for i in range(step)] for pairs in some]


def swapped(own: Tensor, into: Tensor, peer: int) -> None:
    """Sends to a rank while as much comes from it."""
    both = [dist.P2POp(dist.isend, own, peer), dist.P2POp(dist.irecv, into, peer)]
    for work in dist.batch_isend_irecv(both):
        work.wait()


def _timed(action: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    action()
    settle(device)
    return time.perf_counter() - start


def sums(rank: int, ranks: int, device: str) -> int:
    """How many entries of a sum over all ranks are wrong."""
    places = torch.arange(2**16, device=device, dtype=torch.float32) % 64
    found = places + rank % 64
    dist.all_reduce(found)
    return int((found != places * ranks + sum(one % 64 for one in range(ranks))).sum())


def gathered(own: Figures, device: str) -> list[Figures]:
    """Every rank's figures, on every rank."""
    if not dist.is_initialized():
        return [own]
    numbers = torch.tensor(list(vars(own).values())[2:], dtype=torch.float64, device=device)
    names = [text.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0") for text in (own.host, own.device)]
    letters = torch.tensor(list(b"".join(names)), dtype=torch.uint8, device=device)
    every = [[torch.empty_like(one) for _ in range(dist.get_world_size())] for one in (numbers, letters)]
    for into, one in zip(every, (numbers, letters), strict=True):
        dist.all_gather(into, one)
    out = []
    for row, text in zip(*every, strict=True):
        host, name = (bytes(part.tolist()).rstrip(b"\0").decode(errors="replace") for part in text.view(2, NAME_BYTES))
        out.append(Figures(host, name, *row[:5].tolist(), *map(int, row[5:].tolist())))
    return out


def judge(every: Sequence[Figures]) -> list[Finding]:
    """Who is wrong, then who is slow among its like."""
    found = list[Finding]()
    for rank, one in enumerate(every):
        for name, what in WRONG.items():
            if count := getattr(one, name):
                found.append(Finding(rank, (one.host,), one.device, what, "wrong", count, 0, f"{count} wrong answers"))
    for measure in MEASURES:
        for like in groups(every, measure):
            values = {ranks[0]: max(getattr(every[rank], measure.name) for rank in ranks) for ranks in like}
            values = {rank: value for rank, value in values.items() if math.isfinite(value)}
            for rank, usual in measure.slow(values).items():
                one, what, hosts = every[rank], measure.name, {every[rank].host: None}
                if measure.to:
                    other = (rank + steps(every)[measure.to]) % len(every)
                    what += f" to rank {other} ({every[other].host})"
                    hosts |= {every[other].host: None}
                others = "the other one's" if len(values) == 2 else f"the median of {len(values)}"
                said = f"{measure.show(values[rank])}, {values[rank] / usual:.2f} of {others}, {measure.show(usual)}"
                found.append(Finding(rank, tuple(hosts), one.device, what, "slow", values[rank], usual, said))
    return found


def groups(every: Sequence[Figures], measure: Measure) -> list[list[list[int]]]:
    """Whose values are compared: groups of devices, or of links, each by the ranks that stand for it.

    Links inside a host are not compared with those between hosts, and what stays on one device is no link. Ranks that
    share a device, as on a CPU, have the best of their values.
    """
    if not measure.to:
        devices = defaultdict[tuple[str, str], list[int]](list)
        for rank, one in enumerate(every):
            devices[one.place].append(rank)
        return [list(devices.values())]
    inside, between, step = list[list[int]](), list[list[int]](), steps(every)[measure.to]
    for rank, one in enumerate(every):
        other = every[(rank + step) % len(every)]
        if one.place != other.place:
            (inside if one.host == other.host else between).append([rank])
    return [inside, between]


def steps(every: Sequence[Figures]) -> dict[str, int]:
    """From a rank to the other end of each kind of link."""
    return {"next": 1, "across": sum(one.host == every[0].host for one in every)}


def summary(every: Sequence[Figures]) -> str:
    """The lowest and the highest of every measure, in a line."""
    parts = []
    for measure in MEASURES:
        if some := sorted(value for one in every if math.isfinite(value := getattr(one, measure.name))):
            shown = dict.fromkeys(measure.show(value) for value in (some[0], some[-1]))
            parts.append(f"{measure.name} {' to '.join(shown)}")
    return ", ".join(parts)
