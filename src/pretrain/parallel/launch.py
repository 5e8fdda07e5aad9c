"""Processes and their rendezvous: torch's agent starts them, here or by torchrun, and they find each other."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pretrain.base.errors import MachineError, UserError

MISTAKE, HUNG, INTERRUPTED = 2, 75, 130  # exit codes of a rank
PR_SET_PDEATHSIG = 1  # prctl(2)
WAIT = timedelta(days=30)  # while the leading rank makes a corpus


@dataclass(frozen=True)
class Failure:
    """The first rank of this machine that ended before its time, by an exit code, or minus the number of a signal."""

    rank: int
    node: str
    exit_code: int

    def __str__(self) -> str:
        by = signal.Signals(-self.exit_code).name if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"rank {self.rank} on {self.node} ended by {by}" + (" (it hung)" if self.exit_code == HUNG else "")


@dataclass(frozen=True)
class Rule:
    """Ranks are started again, unless they failed `restarts` times and once more with nothing saved in between."""

    restarts: int = 0
    notice: float = 60.0  # seconds in which ranks save and leave, when they are asked to
    saved: Callable[[], int] = lambda: -1  # the step of the newest checkpoint, -1 before there is one
    told: Callable[[Failure], None] = lambda failure: None  # that they are started again, and after what


def size() -> int:
    """Ranks in all."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process among all."""
    return int(os.environ.get("RANK", "0"))


def started() -> bool:
    """Whether an agent has started this process, as one rank."""
    return "RANK" in os.environ


def end_with_agent() -> None:
    """From here on the end of the agent asks this process to save and leave, as SIGTERM does (Linux): nobody would know
    of a rank that goes on alone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def here() -> int:
    """Ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def host() -> str:
    """This machine, as its scheduler calls it."""
    names = (os.environ.get(name) for name in ("SLURMD_NODENAME", "NODE_NAME"))
    return next(filter(None, names), socket.gethostname())


def accelerators() -> int:
    """GPUs of this machine that a process may use, without importing torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return found if allowed is None else min(found, len([name for name in allowed.split(",") if name.strip()]))


@contextmanager
def joined(device: str, *, together: bool) -> Iterator[bool]:
    """The process group of all ranks while it lasts, once the leading one is here; and whether it goes on `together`,
    or has nothing for the others to do. One process has none."""
    if size() == 1:
        yield together
        return
    import torch
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=WAIT)
    try:
        said = torch.tensor(int(together), device=device)
        dist.broadcast(said, 0)
        yield bool(said)
    finally:
        dist.destroy_process_group()


def start(processes: int, arguments: Sequence[str], rule: "Rule", nodes: str = "1", meet: str = "localhost:0") -> int:
    """Runs `pretrain` with these arguments on so many processes of this machine, by torch's elastic agent, which starts
    them again by a rule; returns the exit code of the first that failed for good, or 0. Ctrl-C and SIGTERM reach them
    all, and the leading one says so: 130.

    Of several machines ("4", or "3:4" where three will do) each does so, and their agents meet at a port of one.
    Raises UserError, and MachineError where they do not meet.
    """
    least, most = bounds(nodes)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters

    from pretrain.parallel import agent

    for name in ("elastic", "elastic.agent.server.api", "launcher"):
        logging.getLogger(f"torch.distributed.{name}").setLevel(logging.CRITICAL)  # ranks say what is wrong
    alone = most == 1
    name, address = (str(os.getpid()), "localhost") if alone else ("pretrain", None)
    meeting = RendezvousParameters("c10d", meet, name, least, most, address)
    try:
        script = Path(sys.argv[0])  # as the command was typed: it tells how to go on
        program = [str(script)] if script.name == "pretrain" and script.is_file() else ["-m", "pretrain"]
        return agent.run([sys.executable, *program, *arguments], processes, meeting, rule)
    except SignalException:
        return 130
    except RendezvousError as error:
        raise MachineError(f"{nodes} machines do not meet at {meet}: {error or type(error).__name__}") from None


def lost(error: RuntimeError) -> bool:
    """Whether another rank is gone, as gloo and NCCL say it: that one, or its agent, says why."""
    text = str(error)
    return started() and any(
        words in text for words in ("Connection closed by peer", "Connection reset by peer", "remote process exited")
    )


def bounds(nodes: str) -> tuple[int, int]:
    """The fewest and the most machines of "4" or "3:4". Raises UserError."""
    least, _, most = nodes.partition(":")
    most = most or least
    if not (least.isdecimal() and most.isdecimal() and 0 < int(least) <= int(most)):
        raise UserError(f"--nodes {nodes}", expected="a number, or two as in 3:4")
    return int(least), int(most)


@contextmanager
def pretended(ranks: int, rank: int) -> Iterator[None]:
    """A process group of so many ranks in this one process, which is one of them: what it says is heard by nobody, and
    what it waits for is there at once. Tensors must hold no numbers."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore  # torch has no public name for it

    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
