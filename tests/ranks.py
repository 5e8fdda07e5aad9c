"""Test bodies on several gloo processes: `@ranks(4)` runs one on each, with a thread each, and shows the first failure.

Processes are forked from one server that has imported torch once: a rank begins in some milliseconds, and knows nothing
of the tests before it.
"""

import functools
import importlib.util
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

SECONDS = 120.0  # until a test's ranks count as hung
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torch.distributed.fsdp", "torch.distributed.tensor.parallel"])


def ranks(size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs the decorated test, found by its name in its file, on `size` ranks; its arguments must pickle."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(*args: Any, **named: Any) -> None:
            run(size, Path(body.__code__.co_filename), body.__qualname__, args, named)

        return test

    return decorate


def run(size: int, file: Path, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """The test on every rank. Fails with the traceback of the first that did, or where one does not end."""
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            ours, theirs = SERVER.Pipe(duplex=False)
            work = (file, name, rank, size, folder, args, named, theirs)
            processes.append(SERVER.Process(target=_rank, args=work, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        try:
            left = list(pipes)
            while left:
                ready = wait(left, SECONDS)
                assert ready, f"ranks {[pipes.index(pipe) for pipe in left]} of {size} hang"
                for pipe in ready:
                    assert isinstance(pipe, Connection)
                    left.remove(pipe)
                    try:
                        failure = pipe.recv()
                    except EOFError:
                        failure = "died"
                    assert failure is None, f"rank {pipes.index(pipe)} of {size}: {failure}"
        finally:
            for process in processes:
                process.kill()
                process.join()


def _rank(
    file: Path, name: str, rank: int, size: int, folder: str, args: tuple[Any, ...], named: dict[str, Any], pipe: Any
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        store = dist.FileStore(f"{folder}/store", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=SECONDS / 2))
        spec = importlib.util.spec_from_file_location(f"rank_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        getattr(module, name).__wrapped__(*args, **named)
        dist.barrier()
        pipe.send(None)
        dist.destroy_process_group()
    except BaseException:
        pipe.send(traceback.format_exc())
