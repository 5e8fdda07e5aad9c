"""Closed form: what a person sees is drawn from events alone, and a model's text cannot touch the terminal."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as Rich

from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import (
    Event,
    Mixture,
    Notice,
    Plan,
    Progress,
    Released,
    Resumed,
    Sample,
    Score,
    Stage,
    Started,
    Step,
)
from pretrain.events.log import Log
from pretrain.events.read import follow
from pretrain.watch.console import Console, View, printable, quoted, spark, summary

MUTANTS = [
    ("src/pretrain/watch/console.py", "if one[0] <= step", "if True"),
    ("src/pretrain/watch/console.py", "sorted(means)[int(len(means) * 0.9)]", "max(means)"),
    ("src/pretrain/watch/console.py", "event.time - self._told >= LINE_SECONDS", "True"),
    ("src/pretrain/watch/console.py", "printable(sample.prompt + sample.text)", "(sample.prompt + sample.text)"),
    ("src/pretrain/watch/console.py", "min(SAMPLE_LINES, height - 13)", "SAMPLE_LINES"),
]


def step(number: int, time: float = 0.0) -> Step:
    return Step(number, number * 4, 4, 64, 9.0 / number, 1.0, 0.1, 2.0, 128.0, 1e9, 0.25, 1000, time=time)


def shown(events: Sequence[Event], stream: io.StringIO, live: bool = False) -> str:
    with Console(stream, live=live) as console:
        for event in events:
            console(event)
    return stream.getvalue()


EVENTS: list[Event] = [
    Stage("tokenizer", "started", "nothing is there yet"),
    Stage("tokenizer", "finished", "", "x", 1.5),
    Plan(50, 12800, 2_000_000, 2.0, "train.steps"),
    step(1),
    step(2),
    Sample(2, "def ", "f():\n    return '\x1b[31m[bold]'\x07"),
    Score(2, "bits per byte", 2.5, "bits", "held out"),
]


def test_plain_lines_in_a_pipe() -> None:
    text = shown(EVENTS, io.StringIO())
    assert "tokenizer: runs (nothing is there yet)\ntokenizer: done in 1.5 s\n" in text
    assert "plan: 2.00M parameters, 50 steps, 12.8k tokens (train.steps)\n" in text
    assert "step 1 of 50: loss 9.000, 128 tokens/s, 25% of peak, 1 min 38 s left\n" in text
    assert "step 2 of" not in text, "a line every few seconds is enough"
    assert "  | def f():\n" in text and "score: bits per byte, held out: 2.500 bits" in text
    assert "\x1b" not in text and "\x07" not in text and "[bold]" in text


def test_how_often_each_source_is_read_is_a_table() -> None:
    phased = Mixture([1, 41], {"web": [0.25, 0.05], "books": [1.5, 2.5]}, {"books": 48})
    assert shown([phased], io.StringIO()).splitlines() == [
        "mixture: times that each source is read by the step from which on",
        "         from 1  from 41  in all",
        "  web      0.25     0.05     0.3",
        "  books     1.5      2.5       4",
        "  books runs dry: from step 48 on its share goes to the others",
    ]
    assert "  web    1.25\n" in shown([Mixture([1], {"web": [1.25], "b": [3]})], io.StringIO())


def test_a_line_of_steps_every_five_seconds_of_their_own_time_and_the_last() -> None:
    steps = [step(n, 1000.0 + n) for n in range(1, 51)]
    text = shown([Plan(50, 12800, 2_000_000, 2.0, "train.steps"), *steps], io.StringIO())
    assert [int(n) for n in re.findall(r"^step (\d+) of", text, re.M)] == [*range(1, 51, 5), 50]


def drawn(events: Sequence[Event], width: int = 80, height: int = 40) -> list[str]:
    """The lines of the live part after some events."""
    view, screen = View(), Rich(file=io.StringIO(), width=width, height=height)
    for event in events:
        view.take(event)
    with screen.capture() as capture:
        screen.print(view)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_panel_says_what_there_is_and_fits(width: int) -> None:
    lines = drawn([Started("mine", "d", "c", "0"), *EVENTS], width)
    text = "\n".join(lines)
    assert all(cell_len(line) == min(width - 2, 120) for line in lines), text
    assert "mine" in lines[0] and "1 min 36 s left" in lines[-1] and "▌ def f():" in text and "4.5" in text
    assert "\x1b" not in text and "\x07" not in text
    if width >= 80:
        assert "step 2 of 50" in text and "25% of the measured peak" in text and "2.500 bits/byte" in text
        assert "return '\ufffd[31m[bold]'\ufffd" in text


@pytest.mark.parametrize("height", [10, 14, 18, 24])
def test_a_long_sample_gives_way_to_a_low_terminal(height: int) -> None:
    assert len(drawn([*EVENTS[:-2], Sample(2, "", "x\n" * 99)], height=height)) <= max(height, 10)


def test_other_stages_show_how_far_they_have_come() -> None:
    (line,) = drawn([Stage("corpus", "started", "a file changed"), Progress("corpus", 1500, 4000, "files")])
    assert "corpus  a file changed  1.50k of 4.00k files" in line
    assert drawn([Stage("corpus", "started", ""), Stage("corpus", "finished", "")]) == []


def test_losses_of_steps_that_are_taken_again_are_drawn_once() -> None:
    first, again = [step(n) for n in range(1, 31)], [step(n) for n in range(11, 31)]
    assert drawn([*first, Resumed(10, 40, "x"), *again]) == drawn(first)


def test_a_run_that_goes_on_knows_its_plan() -> None:
    stream = io.StringIO()
    with Console(stream, live=False) as console:
        console.recall(EVENTS)
        assert stream.getvalue() == ""
        for event in [Started("mine", "d", "c", "0"), Resumed(1, 4, "x"), step(2, 1000.0)]:
            console(event)
    assert stream.getvalue().startswith("train: goes on from step 1\nstep 2 of 50: loss 4.500")


def test_what_stays_on_a_terminal_and_what_a_name_may_not_do() -> None:
    events = [
        *EVENTS,
        Notice("warning", "[red]\x1b[2J\u202e"),
        Stage("train", "finished", ""),
        Score(2, "b", 1.0, "u", "s"),
    ]
    text = shown(events, io.StringIO(), live=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "✔ tokenizer: done in 1.5 s" in plain and "∙ step 2 of 50: loss 4.500" in plain
    assert "! warning: [red]\ufffd[2J\ufffd" in plain and "∙ score: b, s: 1.000 u" in plain
    assert "\x1b[31m[bold]" not in text and "\x1b[2J" not in text and "\x07" not in text and "\u202e" not in text
    assert text.endswith("\x1b[?25h") or text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


def test_the_log_file_alone_draws_the_same(tmp_path: Path) -> None:
    run, live = RunDirectory(tmp_path), io.StringIO()
    with Console(live, live=False) as console, Log(run) as log:
        log.subscribe(console)
        for event in EVENTS:
            log.write(event)
    assert shown(list(follow(run, lambda: False)), io.StringIO()) == live.getvalue() != ""


def test_sparks_and_printable() -> None:
    assert spark([4.0, 3.0, 2.0, 1.0], 4) == "█▆▃▁" and spark([1.0], 4) == "" and len(spark([1.0] * 999, 40)) == 40
    clipped = spark([100.0, *[2.0] * 10, *[1.0] * 9], 20)
    assert clipped == "█" * 11 + "▁" * 9, "one wild value does not hide the rest"
    assert spark([1.0, float("nan"), 2.0], 9) == "▁█" and spark([1.0, 2.0], 0) == ""
    assert quoted(Sample(1, "\n", "a\n\n \n\n\tb\n"), 9) == ["a", "", "    b"]
    assert printable("a\tb\nc\x1b\x00é") == "a\tb\nc\ufffd\ufffdé"


def test_the_summary_says_scores_and_what_to_try(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "x")
    run.release.mkdir(parents=True)
    with Log(run) as log:
        log.write(Score(9, "bits per byte", 3.0, "bits", "held out, estimate"))
        log.write(Score(9, "bits per byte", 1.5, "bits", "held out", {"bytes": 1234}))
        log.write(Score(0, "bits per byte, xz -9 baseline", 1.75, "bits", "held out"))
        log.write(
            Score(9, "functions that parse", 0.25, "share", "sampled", {"samples": 8, "parses": "def f():\n    pass"})
        )
        log.write(Sample(9, "import os\n\ndef read(", "x"))
        log.write(Released(str(run.release), "d", 0.0))
    text = summary(run.path)
    assert "1,234 bytes never trained on" in text and "this model       1.500\n  xz -9            1.750" in text
    assert "Of 8 functions that it wrote, Python's parser accepts 25%." in text and "  def f():\n      pass" in text
    assert f"pretrain sample {run.path} 'def read(' --tokens" in text
    assert f"{run.path}: events/, release/\n" in text, "what is there, no more"


def test_the_summary_after_the_corpus_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "x")
    with Log(run) as log:
        log.write(Stage("corpus", "reused", "nothing changed"))
    assert summary(run.path).endswith(f"events/\n\nTry next:\n  pretrain inspect {run.path} --html page.html")
