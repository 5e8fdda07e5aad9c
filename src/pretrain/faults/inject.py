"""Harm done to ranks: by signals, limits and sockets from outside; what only a rank can do to itself, from inside.

`python -m pretrain.faults.inject HARM STEP COMMAND …` is `pretrain COMMAND …` whose last rank does itself a harm in the
step after STEP, once: nothing of it is in what trains.
"""

import ctypes
import os
import resource
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from pretrain.base.errors import MachineError
from pretrain.parallel import launch

PIDFD_GETFD = 438  # the number of the system call, on every architecture
STOPPED_SECONDS, RUNNING_SECONDS = 0.03, 0.01
STRUCK = "struck"  # a file in the folder where one works: the harm is done


def ranks_of(agent: int) -> dict[int, int]:
    """The processes of the ranks that an agent has started, by rank."""
    found = dict[int, int]()
    for children in Path(f"/proc/{agent}/task").glob("*/children"):
        with suppress(OSError):  # it ended meanwhile
            for child in children.read_text().split():
                said = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                found |= {int(one.removeprefix(b"RANK=")): int(child) for one in said if one.startswith(b"RANK=")}
    return found


def slow_down(pid: int, seconds: float) -> None:
    """Stops and continues a process in a fast rhythm for so long."""
    end = time.monotonic() + seconds
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            os.kill(pid, signal.SIGCONT)
            time.sleep(RUNNING_SECONDS)


def cut_off(pid: int) -> int:
    """Shuts all TCP connections of a process of this user; returns how many. Raises MachineError."""
    process, libc, shut = os.pidfd_open(pid), ctypes.CDLL(None, use_errno=True), 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not _is_socket(entry):
                continue
            copy = libc.syscall(PIDFD_GETFD, process, int(entry.name), 0)
            if copy < 0:
                raise MachineError(f"this kernel lends no sockets of a process: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=copy) as one, suppress(OSError):  # it listens, or is shut already
                if one.family in (socket.AF_INET, socket.AF_INET6):
                    one.shutdown(socket.SHUT_RDWR)
                    shut += 1
    finally:
        os.close(process)
    return shut


def _is_socket(entry: Path) -> bool:
    with suppress(OSError):
        return str(entry.readlink()).startswith("socket:")
    return False


def fill_disk(pid: int, most: int) -> None:
    """From here on a process can write no file over so many bytes, as on a disk that is full (EFBIG for ENOSPC)."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))


def flip_byte(path: Path) -> None:
    """Inverts the byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def scale_loss(factor: float) -> Callable[[Any, Callable[[], Any]], Any]:
    """A step in which this rank's part of the loss, and so its gradients, are `factor` times what they are."""

    def harm(state: Any, take: Callable[[], Any]) -> Any:
        from pretrain.train import step

        fine = step.sum_of
        with mock.patch.object(step, "sum_of", lambda parts: fine(parts) * factor):
            return take()

    return harm


def flip_bit(state: Any, take: Callable[[], Any]) -> Any:
    """A step after which one bit of this rank's weights is another."""
    import torch

    from pretrain.model.weights import local

    result = take()
    local(next(state.model.parameters()).detach()).view(-1)[:1].view(torch.uint8)[0] ^= 1
    return result


HARMS: dict[str, Callable[[Any, Callable[[], Any]], Any]] = {
    "nan": scale_loss(float("nan")),
    "spike": scale_loss(1000.0),
    "corruption": flip_bit,
}


def arm(harm: Callable[[Any, Callable[[], Any]], Any], step: int) -> None:
    """Lets the loop of this process take its step after `step` with a harm, unless another process has."""
    from pretrain.train import loop

    fine = loop.train_step

    def train_step(state: Any, *rest: Any) -> Any:
        if state.step != step or Path(STRUCK).exists():
            return fine(state, *rest)
        Path(STRUCK).touch()
        return harm(state, lambda: fine(state, *rest))

    mock.patch.object(loop, "train_step", train_step).start()


def main(arguments: Sequence[str]) -> None:
    """Runs `pretrain`, armed where it is the last rank; its agent starts ranks by this entry too."""
    name, step, *rest = arguments
    if launch.started():
        if launch.rank() == launch.size() - 1:
            arm(HARMS[name], int(step))
    else:
        from pretrain.parallel import agent

        fine, entry = agent.run, ["-m", "pretrain.faults.inject", name, step]
        mock.patch.object(agent, "run", lambda command, *more: fine([command[0], *entry, *command[3:]], *more)).start()
    sys.argv[1:] = rest
    runpy.run_module("pretrain", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
