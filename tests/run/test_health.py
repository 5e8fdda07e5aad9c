"""Closed form: what a run does about a slow and about a wrong device, as its recipe says."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pretrain.base.errors import MachineError
from pretrain.cli import doctor
from pretrain.cli.main import main
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Health, Notice
from pretrain.parallel.health import Figures
from pretrain.run import health
from pretrain.watch.console import line

GOOD = [Figures(f"n{i // 4}", f"cuda:{i % 4}", 4e14, 3e12, 4e11 if i % 4 < 3 else 4e10, 1e-5) for i in range(8)]
SLOW = [*GOOD[:5], replace(GOOD[5], matmul=2e14), *GOOD[6:]]
WRONG = [replace(GOOD[0], wrong_products=3), *SLOW[1:]]

MUTANTS = [
    ("src/pretrain/run/health.py", 'one.state == "wrong" or asked == "stop"', 'asked == "stop"'),
    ("src/pretrain/run/health.py", 'one.state == "wrong" or asked == "stop"', 'one.state == "wrong"'),
    ("src/pretrain/run/health.py", "before + ", ""),
]


@pytest.mark.parametrize(
    ("asked", "every", "stops"),
    [
        ("check", GOOD, []),
        ("check", SLOW, []),
        ("check", WRONG, ["n0"]),
        ("stop", GOOD, []),
        ("stop", SLOW, ["n1"]),
        ("stop", WRONG, ["n0", "n1"]),
        ("skip", WRONG, []),
    ],
)
def test_slow_is_said_and_wrong_stops(
    asked: str, every: list[Figures], stops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, run = list[Event](), RunDirectory(tmp_path)
    run.unhealthy.write_text("n9 some other day\n")
    work: Any = SimpleNamespace(
        recipe=SimpleNamespace(run=SimpleNamespace(health=asked)),
        ranks=SimpleNamespace(alone=False, leads=True),
        policy=SimpleNamespace(compute=torch.bfloat16),
        device="cuda",
        report=told.append,
        run=run,
    )
    monkeypatch.setattr(health, "measure", lambda host, device, dtype, each: every)
    if stops:
        more = "" if len(stops) == 1 else ", and 1 more"
        with pytest.raises(MachineError, match=f"^health: rank .*{more}$"):
            health.check_health(work)
    else:
        health.check_health(work)
    assert [text.split()[0] for text in run.unhealthy.read_text().splitlines()] == ["n9", *stops]
    if asked == "skip":
        assert told == []
        return
    summary = cast(Notice, told[0]).text
    assert "health: 8 ranks in" in summary and "link 37.3 GiB/s to 373 GiB/s, latency 10 µs" in summary
    found = [cast(Health, event) for event in told[1:]]
    assert [(one.rank, one.what, one.state, one.hosts) for one in found] == [
        *([(0, "matmul", "wrong", ["n0"])] if every is WRONG else []),
        *([(5, "matmul", "slow", ["n1"])] if every is not GOOD else []),
    ]
    if every is SLOW:
        text = "rank 5 (n1, cuda:1): matmul: 200 TFLOP/s, 0.50 of the median of 8, 400 TFLOP/s"
        assert line(found[0]) == f"warning: health: {text}"


def test_doctor_shows_ranks_beside_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.parallel.health.measure", lambda host, device, dtype, each: WRONG)
    assert main(["doctor", "--ranks", "1"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["rank", "host", "device", "matmul", "memory", "link", "latency"]
    assert shown[6].split()[:3] == ["5", "n1", "cuda:1"] and "200 TFLOP/s" in shown[6]
    assert shown[10:12] == ["Slow or wrong:", "- rank 0 (n0, cuda:0): matmul: 3 wrong answers"]
    alone = replace(GOOD[0], link=math.nan, latency=math.nan)
    monkeypatch.setattr("pretrain.parallel.health.measure", lambda host, device, dtype, each: [alone])
    assert main(["doctor", "--ranks", "1", "--json"]) == 0
    assert '"link": null' in capsys.readouterr().out


def test_what_a_machine_does_wrong_is_a_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(arguments: object) -> int:
        raise MachineError("health: rank 0 is wrong")

    monkeypatch.setattr(doctor, "run", broken)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "pretrain: health: rank 0 is wrong\n"
