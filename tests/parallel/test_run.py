"""Ordeal: a recipe run on two ranks, stopped, and finished on four others learns what one process learns, and is
scored and released as there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.checkpoint.pieces import Saved
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Accounts, Communication, Machine, Resumed, Score, Stage, Step
from pretrain.events.read import all_of

MUTANTS = [
    ("src/pretrain/run/model_stages.py", "work.ranks.wait()  # until all have read it: it moves", "pass"),
]
LATE = """
import os, sys, time
from pretrain.cli.main import main
from pretrain.run.work import Work
opened = Work.opened
Work.opened = lambda self, folder: (time.sleep(3 * self.ranks.number), opened(self, folder))[1]
sys.exit(main(["run", "small.toml", "run.name=many", "--from", "release", "parallel.replicate=2"]))
"""
AGENT = f"""
import sys
from torch.distributed.elastic.rendezvous import RendezvousParameters
from pretrain.parallel.agent import run
from pretrain.parallel.launch import Rule
meeting = RendezvousParameters("c10d", "localhost:0", "late", 1, 1, "localhost")
sys.exit(run([sys.executable, "-c", {LATE!r}], 2, meeting, Rule()))
"""
RECIPE = """
[run]
name = "one"
threads = 1
[[corpus.sources]]
name = "lines"
read = "jsonl"
paths = ["lines.jsonl"]
[corpus]
held_out = 0.1
[tokenizer]
vocab_size = 288
reserved = 16
multiple = 16
[tokens]
row = 32
[model]
use = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
[train]
steps = 8
batch = 256
sequence = 32
precision = "fp32"
schedule = { use = "constant" }
evaluate_every = 3
sample_every = 3
[evaluate]
sample_tokens = 5
"""


def pretrain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pretrain", "run", "small.toml", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_a_run_moves_from_two_ranks_to_four(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    lines = [{"text": f"{number} and {number * number} are numbers. " * 12} for number in range(60)]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert pretrain(tmp_path, "--to", "train").returncode == 0
    first = pretrain(tmp_path, "run.name=many", "--to", "train", "train.steps=5", "--ranks", "2", "parallel.tp=2")
    assert first.returncode == 0, first.stderr
    second = pretrain(tmp_path, "run.name=many", "--to", "train", "--ranks", "4", "parallel.replicate=2")
    assert second.returncode == 0, second.stderr
    alone, many = (RunDirectory(tmp_path / "runs" / name) for name in ("one", "many"))
    assert [event.layout for event in all_of(many, Machine)] == [
        "replicate 1 · shard 1 · tp 2",
        "replicate 2 · shard 2 · tp 1",
    ]
    assert [event.step for event in all_of(many, Resumed)] == [5]
    expected = [event.loss for event in all_of(alone, Step)]
    assert [event.loss for event in all_of(many, Step)] == pytest.approx(expected, rel=1e-4)
    for run in (alone, many):
        told = all_of(run, Accounts)[-1]
        assert sum(told.parts.values()) == pytest.approx(1, abs=0.01) and {"forward", "backward"} < told.parts.keys()
        assert 0 < told.kept_seconds <= told.wall_seconds and told.repeated_seconds == 0
    assert [event.step for event in all_of(many, Communication)] == [5]
    one, other = (Saved(run.checkpoints / "step-00000008", "model") for run in (alone, many))
    assert sorted(one.names()) == sorted(other.names())
    for name in one.names():
        assert (one.whole(name) - other.whole(name)).abs().max() < 1e-3 * one.whole(name).abs().max(), name

    found = []
    for layout in (["--ranks", "4", "parallel.tp=2", "parallel.pp=2"], ["--ranks", "1", "evaluate.held_out_bytes=1MB"]):
        after = pretrain(tmp_path, "run.name=many", *layout)
        assert after.returncode == 0, after.stderr
        scores = [event.value for event in all_of(many, Score) if event.split == "held out"]
        assert [event.state for event in all_of(many, Stage) if event.name == "train"][-1] == "reused"
        found.append((scores[-4:], (many.release / "model.safetensors").read_bytes()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6) and len(scores) == 8
    assert found[0][1] == found[1][1], "the model is the checkpoint's, whoever wrote it"

    shutil.rmtree(many.release)  # a copy of the model that reads it late still finds it where it was written
    done = subprocess.run([sys.executable, "-c", AGENT], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and (many.release / "model.safetensors").exists(), done.stderr


def test_a_layout_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    told = pretrain(tmp_path, "--ranks", "3", "parallel.tp=2")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(
        "pretrain: parallel: replicate 1 · tp 2 = 2 does not divide 3 ranks; expected replicate 1 · shard 3 · tp 1"
    )
    assert told.stderr.count("\n") == 1
