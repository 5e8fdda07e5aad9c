"""The run on a console, drawn from its events alone: a live panel on a terminal, plain lines in a pipe."""

import shlex
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console as Rich
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pretrain.base.units import show_count, show_flops, show_seconds
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import (
    Event,
    Machine,
    Notice,
    Plan,
    Released,
    Resumed,
    Sample,
    Saved,
    Score,
    Stage,
    Step,
)
from pretrain.events.read import all_of, last

LINE_SECONDS = 5.0  # between lines of steps in a pipe
BARS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """A model's text without what would move a terminal's cursor or colours."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


class Console:
    """A subscriber of a log. A context, since the live panel must be closed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._rich = Rich(file=stream or sys.stdout, highlight=False)
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._step: Step | None = None
        self._losses: deque[float] = deque(maxlen=2000)
        self._sample: Sample | None = None
        self._score: Score | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if isinstance(event, Step):
            self._on_step(event)
        elif isinstance(event, Sample):
            self._on_sample(event)
        elif isinstance(event, Score) and self._step is not None and self._live is not None:
            self._score = event
        elif isinstance(event, Plan):
            self._plan = event
            self._say(line(event))
        else:
            if isinstance(event, Stage) and event.state != "started":
                self._close()
            text = line(event)
            if text and not (isinstance(event, Saved) and self._live):
                self._say(text)

    def _on_step(self, step: Step) -> None:
        self._step = step
        self._losses.append(step.loss)
        now = time.monotonic()
        if self._rich.is_terminal:
            if self._live is None:
                self._live = Live(console=self._rich, auto_refresh=False, transient=True)
                self._live.start()
            if now - self._drawn > 0.2:
                self._live.update(self._panel(), refresh=True)
                self._drawn = now
        elif now - self._drawn > LINE_SECONDS:
            self._say(step_line(step, self._plan))
            self._drawn = now

    def _on_sample(self, sample: Sample) -> None:
        self._sample = sample
        if self._live is None:
            self._say(f"step {sample.step} writes:")
            for one in printable(sample.prompt + sample.text).splitlines()[:12]:
                self._say(f"  | {one}")

    def _panel(self) -> Panel:
        assert self._step is not None
        step, total = self._step, self._plan.steps if self._plan else None
        head = Table.grid(padding=(0, 2))
        head.add_row("loss", f"{step.loss:.3f} nats a token", spark(list(self._losses), 40))
        head.add_row(
            "speed", f"{show_count(step.tokens_per_second)} tokens/s", f"{step.flops_fraction:.0%} of the measured peak"
        )
        head.add_row("gradient", f"norm {step.gradient_norm:.2f}", f"learning rate {step.learning_rate:.4f}")
        if self._score:
            head.add_row("held out", f"{self._score.value:.3f} bits per byte", f"after step {self._score.step}")
        parts: list = [head]
        if total:
            parts.append(ProgressBar(total=total, completed=step.step))
        if self._sample:
            text = printable(self._sample.prompt + self._sample.text)
            parts.append(Text(f"\nafter step {self._sample.step} it writes:", style="dim"))
            parts.append(Text("\n".join(text.splitlines()[:14]), style="cyan", no_wrap=True, overflow="ellipsis"))
        left = f", {show_seconds((total - step.step) * step.step_seconds)} left" if total else ""
        return Panel(Group(*parts), title=f"training: step {step.step} of {total or '?'}{left}", title_align="left")

    def _say(self, text: str) -> None:
        self._rich.print(Text(text), soft_wrap=True)

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._step is not None:
                self._say(step_line(self._step, self._plan))


def spark(values: list[float], width: int) -> str:
    """A line of bars: means over equal stretches, the first and wildest ones clipped to the rest."""
    if len(values) < 2:
        return ""
    size = max(len(values) / width, 1)
    means = []
    for i in range(min(width, len(values))):
        part = values[int(i * size) : max(int((i + 1) * size), int(i * size) + 1)]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    return "".join(BARS[min(int((value - low) / ((high - low) or 1) * 8), 7)] for value in means)


def step_line(step: Step, plan: Plan | None) -> str:
    """A step in a line."""
    of = f" of {plan.steps}" if plan else ""
    left = (
        f", {show_seconds((plan.steps - step.step) * step.step_seconds)} left"
        if plan and plan.steps > step.step
        else ""
    )
    speed = f"{show_count(step.tokens_per_second)} tokens/s, {step.flops_fraction:.0%} of peak"
    return f"step {step.step}{of}: loss {step.loss:.3f}, {speed}{left}"


def line(event: Event) -> str:
    """An event in a line; "" for one that a person need not see."""
    match event:
        case Stage(name=name, state="started", why=why):
            return f"{name}: runs ({why})"
        case Stage(name=name, state="finished", seconds=seconds):
            return f"{name}: done" + (f" in {show_seconds(seconds)}" if seconds else "")
        case Stage(name=name, state="reused", why=why):
            return f"{name}: reused ({why})"
        case Stage(name=name, state="skipped", why=why):
            return f"{name}: would run ({why})"
        case Machine(device=device, threads=threads, precision=precision, matmul_flops_per_second=flops):
            return f"machine: {device}, {threads} threads, {precision}, {show_flops(flops)} in matrix products"
        case Plan(steps=steps, tokens=tokens, parameters=parameters, why=why):
            return f"plan: {show_count(parameters)} parameters, {steps:,} steps, {show_count(tokens)} tokens ({why})"
        case Resumed(step=step):
            return f"train: goes on from step {step}"
        case Saved(step=step, save_seconds=seconds):
            return f"saved: step {step} in {show_seconds(seconds)}"
        case Score(name=name, value=value, unit=unit, split=split):
            return f"score: {name}, {split}: {value:.3f} {unit}"
        case Notice(level=level, text=text):
            return f"{'warning: ' if level == 'warning' else ''}{text}"
        case Released(folder=folder, logit_difference=difference):
            return f"released: {folder} (logits equal to the checkpoint's within {difference:.0e})"
    return ""


def summary(directory: Path) -> str:
    """What a run came to: where things are, the scores beside their baselines, and what to try next."""
    run = RunDirectory(directory)
    near = str(directory.relative_to(Path.cwd())) if directory.is_relative_to(Path.cwd()) else str(directory)
    scores = {score.name: score for score in all_of(run, Score) if "estimate" not in score.split}
    lines = [
        "",
        f"The run is in {near}: recipe.toml, events/, checkpoints/" + (", release/" if run.release.exists() else ""),
    ]
    bits = scores.get("bits per byte")
    if bits:
        lines += [
            "",
            f"Held-out bits per byte (lower is better; {bits.detail.get('bytes', 0):,} bytes never trained on):",
        ]
        lines.append(f"  this model       {bits.value:.3f}")
        for name, label in (("xz -9", "xz -9"), ("unigram", "unigram tokens")):
            found = scores.get(f"bits per byte, {name} baseline")
            lines += [f"  {label:<16} {found.value:.3f}"] if found else []
    parses = scores.get("functions that parse")
    if parses:
        lines += [
            "",
            f"Of {parses.detail['samples']} functions that it wrote, Python's parser accepts {parses.value:.0%}.",
        ]
        if parses.detail.get("parses"):
            lines += [
                "One of them:",
                *(f"  {one}" for one in printable(str(parses.detail["parses"])).splitlines()[:14]),
            ]
    if last(run, Released):
        quoted = shlex.quote(near)
        written = last(run, Sample)
        prompt = (written.prompt.splitlines() or [""])[-1] if written else ""
        lines += ["", "Try next:", f"  pretrain sample {quoted} {shlex.quote(prompt)} --tokens 120"]
        lines += [f"  pretrain evaluate {quoted} --data FILE", f"  cat {shlex.quote(near + '/release/README.md')}"]
    return "\n".join(lines)
