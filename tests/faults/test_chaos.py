"""Closed form: verdicts of two runs' facts. Ordeal: a leading rank killed while it saves, which no other test does."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parallel.test_run import RECIPE
from pretrain.cli.main import main
from pretrain.events.kinds import Event, Restarted, Skipped, Stage, Step
from pretrain.faults.judge import ROUNDING, Expected, Facts, difference, judge
from pretrain.faults.scenarios import SCENARIOS

MUTANTS = [
    ("src/pretrain/faults/judge.py", "if hurt.exits != expected.exits:", "if False:"),
    ("src/pretrain/faults/judge.py", "far > ROUNDING", "far > 1"),
    (
        "src/pretrain/faults/judge.py",
        'expected.weights == "same" and far > 0',
        'expected.weights == "same" and far > 1',
    ),
    ("src/pretrain/faults/judge.py", "hurt.step != plain.step", "False"),
    ("src/pretrain/faults/judge.py", "if far == far else", "if True else"),
    ("src/pretrain/faults/judge.py", "usual[step].position + skip.rows", "usual[step].position"),
    ("src/pretrain/faults/judge.py", "if step <= skip.after", "if step < skip.after"),
    ("src/pretrain/faults/judge.py", "hurt.seconds - plain.seconds", "hurt.seconds"),
]
ROWS, STEPS = 8, 6


def step(number: int, *, behind: int = 0, loss: float = 1.0) -> Step:
    numbers = {"learning_rate": 0.1, "step_seconds": 1.0, "tokens_per_second": 1.0, "flops_per_second": 1.0}
    more = {"flops_fraction": 0.0, "memory_bytes": 0, "tokens": 0, "gradient_norm": 1.0}
    return Step(step=number, position=(number - 1 + behind) * ROWS, rows=ROWS, loss=loss, **numbers, **more)


def timed(events: list[Event], seconds: float) -> list[Event]:
    """Of a log that begins with training and is so long."""
    found = [Stage("train", "started", ""), *events]
    for number, event in enumerate(found):
        object.__setattr__(event, "time", 100 + seconds * number / (len(found) - 1))
    return found


def facts(exits: tuple[int | None, ...] = (0,), extra: float = 0.0, seconds: float = 10.0) -> Facts:
    weights = {"a": torch.arange(1.0, 9.0), "b": torch.ones(3)}
    weights["a"][2] += extra
    events: list[Event] = [step(n) for n in range(1, STEPS + 1)]
    if exits != (0,) or extra:
        events.insert(3, Restarted(1, "node", -9, 3, 2, 1.0, "rank 1 on node ended by SIGKILL"))
    return Facts(exits, timed(events, seconds), weights, STEPS)


def test_a_verdict_says_what_does_not_hold() -> None:
    plain, killed = facts(), Expected(names=("rank 1 on node ended by SIGKILL",))
    same = replace(facts((0, 0), seconds=13.5), exits=(0,))
    found = judge("kill", killed, plain, same)
    assert found.wrong == () and found.lost_seconds == pytest.approx(3.5) and "SIGKILL" in found.named
    assert found.text == "kill: holds: weights are the same to the last bit, 4 s lost"
    assert judge("kill", killed, plain, plain).wrong == ("the log does not say 'rank 1 on node ended by SIGKILL'",)
    assert judge("kill", killed, plain, facts((1,))).wrong == ("its exit codes are 1, expected 0",)
    assert judge("kill", killed, plain, facts((None,))).wrong == ("its exit codes are none in time, expected 0",)
    assert judge("kill", killed, plain, replace(same, step=5)).wrong == ("it ended at step 5 of 6",)
    assert judge("kill", killed, plain, replace(same, weights={})).wrong == ("it ended at step 6 of 6",)
    bit = judge("kill", killed, plain, facts(extra=1e-6))
    assert len(bit.wrong) == 1 and bit.text.startswith("kill: does not hold: weights differ by")
    rounding = Expected(weights="rounding")
    assert judge("fewer", rounding, plain, facts(extra=1e-6)).wrong == ()
    assert len(judge("fewer", rounding, plain, facts(extra=0.1)).wrong) == 1


def test_weights_differ_by_the_worst_of_their_norms() -> None:
    one, other = (
        {"a": torch.tensor([3.0, 4.0]), "b": torch.ones(2)},
        {"a": torch.tensor([3.0, 4.5]), "b": torch.ones(2)},
    )
    assert difference(one, one) == 0 and difference(one, other) == pytest.approx(0.1) and ROUNDING < 0.1
    assert difference(one, {"a": one["a"]}) == math.inf
    assert difference(one, {**one, "b": torch.tensor([1.0, math.nan])}) == math.inf
    assert difference(one, {**one, "b": torch.ones(3)}) == math.inf


def test_where_a_batch_is_passed_over_all_else_is_as_it_was() -> None:
    plain, expected = facts(), Expected(weights="skipped", names=("are passed over: loss nan",))
    skip = Skipped(4, 3, 3 * ROWS, ROWS, None, None, "loss nan with gradient norm nan")
    good: list[Event] = [*(step(n) for n in (1, 2, 3)), skip, *(step(n, behind=1, loss=2.0) for n in (4, 5, 6))]
    hurt = replace(facts(extra=0.5), events=timed(good, 10.0))
    assert judge("nan", expected, plain, hurt).wrong == ()
    assert judge("nan", expected, plain, replace(hurt, events=timed([*good, skip], 10.0))).wrong
    before = [*good[:2], step(3, loss=2.0), *good[3:]]
    assert "before step 4" in judge("nan", expected, plain, replace(hurt, events=timed(before, 10.0))).wrong[0]
    far = [*good[:4], *(step(n, behind=2) for n in (4, 5, 6))]
    assert "other rows" in judge("nan", expected, plain, replace(hurt, events=timed(far, 10.0))).wrong[0]
    nan = {**hurt.weights, "b": torch.full((3,), math.nan)}
    assert judge("nan", expected, plain, replace(hurt, weights=nan)).wrong == ("weights are no numbers",)


def test_the_command_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SCENARIOS)
    assert main(["chaos", "quickstart", "kil"]) == 2
    assert "no scenario 'kil'; expected one of --list; nearest: kill" in capsys.readouterr().err
    assert main(["chaos", "quickstart", "kill", "--ranks", "1"]) == 2 and main(["chaos"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's table of processes")
def test_a_save_that_is_interrupted_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    (tmp_path / "lines.jsonl").write_text('{"text": "%s"}\n' % ("one and two and three are numbers. " * 12) * 60)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["train.steps=40", "train.checkpoint_every=4", "train.evaluate_every=0", "train.sample_every=0"]
    assert main(["chaos", "small.toml", "interrupted-save", *options, "run.health=skip", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["scenarios"]
    assert found["wrong"] == [] and "ended by SIGKILL" in found["named"] and found["weights"].endswith("last bit")
