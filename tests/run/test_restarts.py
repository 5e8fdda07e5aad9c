"""Ordeal: a rank is killed, another is stopped; the run ends by itself, with the weights of one where neither was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from parallel.test_run import RECIPE
from pretrain.checkpoint.pieces import Saved
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Hung, Restarted, Resumed, Stage, Started, Step, to_json
from pretrain.events.kinds import Saved as Kept
from pretrain.events.read import all_of
from pretrain.parallel.launch import Failure
from pretrain.run.restarts import restarted

MUTANTS = [
    ("src/pretrain/parallel/agent.py", "self._rule.told(self.failure)", "pass"),
    ("src/pretrain/train/watchdog.py", "os._exit(HUNG)", "pass"),
    ("src/pretrain/run/restarts.py", "since, stage = event.time", "_, stage = event.time"),
    ("src/pretrain/cli/run.py", "        launch.end_with_agent()", "        pass"),
]
STEPS, EVERY = 60, 10


def begin(folder: Path, name: str, steps: int = STEPS) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "pretrain",
        "run",
        "small.toml",
        "--to",
        "train",
        "--ranks",
        "2",
        f"run.name={name}",
    ]
    options = [
        f"train.steps={steps}",
        f"train.checkpoint_every={EVERY}",
        "train.evaluate_every=0",
        "train.sample_every=0",
    ]
    options += ["run.health=skip", "run.hang=5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([*command, *options], cwd=folder, env=environment, text=True, **pipes)


def last_rank(agent: int) -> int:
    """The process of the rank that was started last."""
    return max(int(text) for text in Path(f"/proc/{agent}/task/{agent}/children").read_text().split())


def until_saved(run: RunDirectory, step: int) -> Iterator[None]:
    end = time.monotonic() + 120
    while not (run.checkpoints / f"step-{step:08d}").exists():
        assert time.monotonic() < end, f"step {step} is not saved"
        time.sleep(0.02)
        yield


def test_what_is_lost_counts_from_the_last_start_or_save_and_names_the_stage(tmp_path: Path) -> None:
    run, killed, now = RunDirectory(tmp_path), Failure(1, "node7", -signal.SIGKILL), time.time()
    (run.checkpoints / "step-00000002").mkdir(parents=True)
    begun, train = Started("x", "", "", "", time=now - 900), Stage("train", "started", "", time=now - 890)

    def told(*events: Event) -> str:
        run.events.mkdir(exist_ok=True)
        (run.events / "rank-00000.jsonl").write_text("".join(json.dumps(to_json(event)) + "\n" for event in events))
        return restarted(run, killed).text

    saved = [begun, train, Kept(2, "", 0.1, 1, time=now - 500)]
    at_two = "rank 1 on node7 ended by SIGKILL, after step 0; all ranks go on from step 2"
    assert told(*saved) == f"{at_two}, 500 s are lost"
    assert told(*saved, replace(begun, time=now - 40), replace(train, time=now - 38)) == f"{at_two}, 40 s are lost"
    scored = [replace(begun, time=now - 40), Stage("evaluate", "started", "", time=now - 30)]
    text = "rank 1 on node7 ended by SIGKILL, in evaluate; all ranks begin that again, 40 s are lost"
    assert told(*saved, *scored) == text
    assert ", in the beginning; all ranks begin that again, 9 s" in told(*saved, *scored, replace(begun, time=now - 9))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's table of processes")
def test_ranks_whose_command_is_killed_save_and_leave(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    (tmp_path / "lines.jsonl").write_text('{"text": "%s"}\n' % ("one and two and three are numbers. " * 12) * 60)
    alone, run = begin(tmp_path, "alone", steps=100_000), RunDirectory(tmp_path / "runs" / "alone")
    for _ in until_saved(run, EVERY):
        assert alone.poll() is None
    ranks = [int(text) for text in Path(f"/proc/{alone.pid}/task/{alone.pid}/children").read_text().split()]
    os.kill(alone.pid, signal.SIGKILL)
    try:
        alone.communicate(timeout=60)  # the pipe is open until the last rank has left
    finally:
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)
    assert max(one.step for one in all_of(run, Step)) < 100_000 and all_of(run, Kept)[-1].step >= EVERY


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's table of processes")
def test_a_killed_and_a_stopped_rank_cost_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    (tmp_path / "lines.jsonl").write_text('{"text": "%s"}\n' % ("one and two and three are numbers. " * 12) * 60)
    plain = begin(tmp_path, "plain")
    said, _ = plain.communicate(timeout=120)
    assert plain.returncode == 0, said
    hurt, run = begin(tmp_path, "hurt"), RunDirectory(tmp_path / "runs" / "hurt")
    for step, blow in ((EVERY, signal.SIGKILL), (3 * EVERY, signal.SIGSTOP)):
        for _ in until_saved(run, step):
            assert hurt.poll() is None
        os.kill(last_rank(hurt.pid), blow)
    said, _ = hurt.communicate(timeout=180)
    assert hurt.returncode == 0, said
    assert "has lost another rank" in said and "Traceback" not in said
    killed, stopped = all_of(run, Restarted)
    assert killed.exit_code == -signal.SIGKILL and killed.saved_step >= EVERY
    assert stopped.saved_step >= 3 * EVERY and len(all_of(run, Resumed)) == 2
    (hung,) = all_of(run, Hung)
    assert f"rank {killed.rank}" in hung.text and len(hung.ranks) == 1 and hung.ranks[0]["collective"]
    assert max(one.step for one in all_of(run, Step)) == STEPS
    ends = [
        Saved(tmp_path / "runs" / name / "checkpoints" / f"step-{STEPS:08d}", "model") for name in ("plain", "hurt")
    ]
    for name in ends[0].names():
        assert ends[0].whole(name).equal(ends[1].whole(name)), name
