"""Brute force: a process killed at each touch of the disk during a save leaves a whole checkpoint, old or new."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from pretrain.base.extension import find
from pretrain.checkpoint.save import load, newest, save
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks

MUTANTS = [("src/pretrain/base/files.py", 'return path.with_name(f".', 'return path or path.with_name(f".')]
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}  # audit events of CPython

nimble = find("model.families", "nimble")
CONFIG = nimble.Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)


def state_at(step: int) -> State:
    """A state that tells its step by its weights."""
    model = make(nimble, CONFIG)
    initialise(model, nimble.weights(CONFIG), 0.02, step)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, nimble.weights(CONFIG))
    return State(model, nimble.weights(CONFIG), optimizer, step, 4 * step, History((Segment(0, {"a": 1.0}, {}),)))


def save_and_die(state: State, folder: Path, touch: int, *, behind: bool) -> int:
    """The signal that ended a child which saves, perhaps `behind` its back, and is killed before its touch of that
    number; 0 if it came through."""
    child = os.fork()
    if child == 0:
        left = touch

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event in TOUCHES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        if behind:
            with Saver(folder, "", 2, lambda event: None, Ranks()) as saver:
                saver.save(state, wait=False)
                state.model.get_parameter("embed.weight").data.zero_()  # training goes on
        else:
            save(state, folder, "")
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("again", "behind"),
    [(False, False), (True, False), (False, True)],
    ids=["a new step", "a step saved before", "a new step, while training goes on"],
)
def test_killed_at_any_touch_of_the_disk(tmp_path: Path, again: bool, behind: bool) -> None:
    old, new = state_at(1), state_at(2)
    steps, touch = [], 0
    while True:
        folder = tmp_path / str(touch)
        save(old, folder, "")
        if again:
            save(new, folder, "")
        ended = save_and_die(new, folder, touch, behind=behind)
        found, damaged = newest(folder)
        assert found is not None and not damaged
        back = state_at(3)
        load(found, back)
        truth = {1: old, 2: new}[back.step]
        assert found.name == f"step-{back.step:08d}" and back.position == 4 * back.step
        assert torch.equal(back.model.get_parameter("embed.weight"), truth.model.get_parameter("embed.weight"))
        save(new, folder, "")
        assert {one.name for one in folder.iterdir()} == {"latest", "step-00000001", "step-00000002"}
        steps.append(back.step)
        if ended == 0:
            break
        touch += 1
    assert touch > 8 and steps[-1] == 2
    assert steps == sorted(steps) or again
