"""Closed form: what a person sees is drawn from events alone, and a model's text cannot touch the terminal."""

import io
from pathlib import Path

from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Plan, Released, Sample, Score, Stage, Step
from pretrain.events.log import Log
from pretrain.watch.console import Console, printable, spark, summary


def step(number: int) -> Step:
    return Step(number, number * 4, 4, 64, 9.0 / number, 1.0, 0.1, 2.0, 128.0, 1e9, 0.25, 1000)


def shown(events: list[Event], stream: io.StringIO) -> str:
    with Console(stream) as console:
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_panel_on_a_terminal() -> None:
    text = shown(EVENTS, Terminal())
    assert "training: step 1 of 50" in text and "nats a token" in text
    assert "step 2 of 50: loss 4.500" in text, "the last step stays when the panel is gone"
    assert "\x1b[31m" not in text and "\x07" not in text


def test_sparks_and_printable() -> None:
    assert spark([4.0, 3.0, 2.0, 1.0], 4) == "█▆▃▁" and spark([1.0], 4) == "" and len(spark([1.0] * 999, 40)) == 40
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
