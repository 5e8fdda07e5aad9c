"""Ordeal: saves behind training's back, in folders and object stores, and what goes wrong with them."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from pretrain.base import files
from pretrain.base.errors import DiskFullError, UserError
from pretrain.base.extension import find
from pretrain.base.files import verify
from pretrain.base.remote import Place, names, place
from pretrain.checkpoint import save as saving
from pretrain.checkpoint.save import load, newest, prune, save, set_aside
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Pruned, Saved
from pretrain.model.folder import make
from pretrain.model.weights import held, initialise, local
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from ranks import ranks

MUTANTS = [
    ("src/pretrain/checkpoint/saver.py", "            snapshot = self._copy(snapshot)", "            pass"),
    ("src/pretrain/checkpoint/saver.py", "        self.wait()\n        snapshot", "        snapshot"),
    ("src/pretrain/checkpoint/save.py", "at += -(-content.bytes // 8) * 8", "at += 0"),
    ("src/pretrain/checkpoint/save.py", "isinstance(path, Path) or (path / MANIFEST).is_file()", "path"),
    ("src/pretrain/base/files.py", "digest_file(path) == state.hexdigest()", "True"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
)


def state_at(step: int, on: Ranks | None = None) -> State:
    """A state that tells its step by its weights, and whose optimizer has taken a step."""
    on = on or Ranks()
    model, axes = make(llama, CONFIG), CONFIG.axes()
    initialise(model, llama.weights(CONFIG), 0.02, step)
    rows = on.apply(model, llama.weights(CONFIG), axes)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, rows)
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step(1.0)
    return State(model, rows, optimizer, step, 4 * step, History((Segment(0, {"a": 1.0}, {}),)), axes, on)


def everything(state: State) -> dict[str, torch.Tensor]:
    """A copy of what a state holds on this rank."""
    tensors = {name: held(state.model, name) for name, _ in state.model.named_parameters()}
    return {name: local(one.detach()).clone() for name, one in (tensors | state.optimizer.state()).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def spoil(state: State) -> None:
    """Training goes on."""
    for tensor in (*state.model.parameters(), *state.optimizer.state().values()):
        local(tensor.detach()).add_(1)


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a bucket of an S3 server of our own."""
    pytest.importorskip("s3fs", reason="s3fs (the extra `remote`) is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["s3"] = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    fsspec.filesystem("s3").mkdir("saves")
    yield "s3://saves"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.mark.parametrize("system", ["folder", "memory", "s3"])
def test_what_is_saved_is_the_state_as_it_was_wherever_it_lies(
    tmp_path: Path, request: pytest.FixtureRequest, system: str
) -> None:
    urls = {"folder": str(tmp_path / "saves"), "memory": f"memory://{tmp_path}/saves"}
    folder, events = (
        place(urls[system] if system in urls else request.getfixturevalue("bucket") + "/run"),
        list[Event](),
    )
    before = dict[int, dict[str, torch.Tensor]]()
    with Saver(folder, "", 2, events.append, Ranks()) as saver:
        for step in (1, 2, 3):
            state = state_at(step)
            before[step] = everything(state)
            saver.save(state, wait=False)
            spoil(state)
    found, damaged = newest(folder)
    assert found is not None and found.name == "step-00000003" and not damaged
    assert names(folder) == ["latest", "step-00000002", "step-00000003"]
    assert (folder / "latest").read_bytes() == b"step-00000003\n"
    back = state_at(9)
    load(found, back)
    assert same(everything(back), before[3]) and (back.step, back.position) == (3, 12)
    saved = [event for event in events if isinstance(event, Saved)]
    assert [event.step for event in saved] == [1, 2, 3]
    assert [event.step for event in events if isinstance(event, Pruned)] == [1]
    assert saved[-1].saved_bytes == sum(one["bytes"] for one in verify(found).values())
    damage(folder, found)


def damage(folder: Place, newer: Place) -> None:
    """A changed byte is found; what is set aside counts no more, and goes with the next save."""
    content = (newer / "model.safetensors").read_bytes()
    files.write(newer / "model.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    found, damaged = newest(folder)
    assert found is not None and found.name == "step-00000002" and list(damaged) == [newer]
    assert "content differs" in str(damaged[newer])
    set_aside(newer)
    assert newest(folder) == (found, {})
    assert save(state_at(3), folder, "") == newer and newest(folder) == (newer, {})
    prune(folder, 1)
    assert names(folder) == ["latest", "step-00000003"]


def test_nothing_counts_in_a_store_before_its_manifest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place(f"memory://{tmp_path}/saves")
    old = save(state_at(1), folder, "")

    def cut(folder: Place, entries: object) -> None:
        raise UserError("the network is gone")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="network"):
        patch.setattr(saving, "write_manifest", cut)
        patch.setattr(saving, "remove", lambda what: None)
        save(state_at(2), folder, "")
    assert names(folder) == ["latest", "step-00000001", "step-00000002"] and newest(folder) == (old, {})
    assert prune(folder, 1) == [folder / "step-00000002"]


def test_one_save_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going, most = list[str](), 0

    def slow(what: Place, chunks: Iterator[memoryview], stream: object = files.stream) -> files.Entry:
        nonlocal most
        going.append(threading.current_thread().name)
        most = max(most, len(going))
        try:
            return stream(what, chunks)  # type: ignore[operator]
        finally:
            going.pop()

    monkeypatch.setattr(saving, "stream", slow)
    with Saver(tmp_path, "", 9, lambda event: None, Ranks()) as saver:
        for step in range(1, 6):
            saver.save(state_at(step), wait=False)
            buffer = saver._buffer.data_ptr()
        saver.save(state_at(6), wait=True)
        assert saver._buffer.data_ptr() == buffer and most == 1
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [f"step-{step:08d}" for step in range(1, 7)]


@pytest.mark.parametrize("wait", [True, False])
def test_a_full_disk_is_said_by_the_next_call_and_the_old_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    old = save(state_at(1), tmp_path, "")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Saver(tmp_path, "", 2, lambda event: None, Ranks()) as saver:
        with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="the disk is full"):
            patch.setattr(files.os, "fsync", full)
            saver.save(state_at(2), wait=wait)
            while not saver.failed:
                time.sleep(0.001)
            saver.look()  # tells of no save
            saver.wait()
        assert newest(tmp_path) == (old, {}) and names(tmp_path) == ["latest", "step-00000001"]
        saver.save(state_at(2), wait=True)  # there is room again
    assert newest(tmp_path)[0] == tmp_path / "step-00000002"


def test_a_byte_that_a_disk_changes_is_found_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(handle: int) -> None:
        os.pwrite(handle, b"!", 3)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="not what is read back"):
        patch.setattr(files.os, "fsync", sync)
        save(state_at(1), tmp_path, "")
    assert newest(tmp_path) == (None, {})


@ranks(2)
def with_a_rank_that_cannot_write(folder: Path) -> None:
    on = Ranks.of(Layout(shard=2), "cpu")
    old = save(state_at(1, on), folder, "")
    events: list[Event] = []
    with Saver(folder, "", 2, events.append, on) as saver:
        stream = saving.stream
        if on.number == 1:
            saving.stream = refused  # type: ignore[assignment]
        saver.save(state_at(2, on), wait=False)
        with pytest.raises(DiskFullError, match=r"no room" if on.number else r"rank 1: .*no room"):
            saver.wait()
        saving.stream = late if on.number == 1 else stream  # type: ignore[assignment]
        saving.PART_SECONDS = 0.2
        saver.save(state_at(3, on), wait=False)
        line = r"the checkpoint of step 3 lacks what rank 1 should have written"
        with pytest.raises(UserError, match=f"rank 0: .*{line}" if on.number else line):
            saver.wait()
        saving.stream, saving.PART_SECONDS = stream, 60.0
        assert newest(folder, on) == (old, {}) and not events
        state = state_at(4, on)
        before = everything(state)
        saver.save(state, wait=False)
        spoil(state)
        saver.save(state_at(5, on), wait=True)
    assert [event.step for event in events if isinstance(event, Saved)] == ([4, 5] if on.leads else [])
    back = state_at(9, on)
    load(folder / "step-00000004", back)
    assert same(everything(back), before)
    on.wait()
    if on.leads:  # one of the two finds it, both are told
        broken = folder / "step-00000005" / "optimizer-00001.safetensors"
        broken.write_bytes(broken.read_bytes()[:-1] + b"\x7f")
    on.wait()
    found, damaged = newest(folder, on)
    assert found == folder / "step-00000004"
    assert "optimizer-00001.safetensors: content differs" in str(*damaged.values())


def refused(what: Place, chunks: Iterator[memoryview]) -> files.Entry:
    raise DiskFullError("no room", where=str(what))


def late(what: Place, chunks: Iterator[memoryview]) -> files.Entry:
    time.sleep(1.0)
    return files.stream(what, chunks)


def test_what_goes_wrong_on_a_rank_is_said_on_all(tmp_path: Path) -> None:
    with_a_rank_that_cannot_write(tmp_path)
