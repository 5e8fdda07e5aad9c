"""Processes and their rendezvous: torchrun starts them, here they find each other."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

WAIT = timedelta(days=30)  # while the leading rank makes a corpus


def size() -> int:
    """Ranks in all."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process among all."""
    return int(os.environ.get("RANK", "0"))


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


def command(processes: int, arguments: Sequence[str]) -> list[str]:
    """The command line that starts `pretrain` on so many processes of this machine."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *torchrun, "-m", "pretrain", *arguments]
