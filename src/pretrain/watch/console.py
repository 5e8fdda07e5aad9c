"""The run on a console, drawn from its events alone: a live panel on a terminal, plain lines in a pipe."""

import json
import math
import re
import shlex
import statistics
import time
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.box import ROUNDED
from rich.console import Console as Rich
from rich.console import ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pretrain.base.units import show_bytes, show_count, show_flops, show_seconds
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import (
    Accounts,
    Changed,
    Communication,
    Corrupted,
    Event,
    Health,
    Hung,
    Lost,
    Machine,
    Mixture,
    Notice,
    Plan,
    Progress,
    Released,
    Restarted,
    Resumed,
    Sample,
    Saved,
    Score,
    Skipped,
    Slow,
    Stage,
    Started,
    Step,
)
from pretrain.events.read import all_of, last

LINE_SECONDS = 5.0  # between lines of steps in a pipe
RECENT_STEPS = 20  # whose median says how long the rest will take
SAMPLE_LINES = 12
HELD = ("recipe.toml", "events/", "checkpoints/", "release/")  # of a run directory, what the summary names
PANEL_COLUMNS = 120
BARS = "▁▂▃▄▅▆▇█"
MARKS = {"finished": ("✔", "green"), "reused": ("↻", "blue"), "skipped": ("○", "yellow"), "started": ("▸", "cyan")}


def printable(text: str) -> str:
    """A model's text without what would move a terminal's cursor or colours, or turn the direction of writing."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


class Console:
    """A subscriber of a log. A context, since a live panel must be closed."""

    def __init__(self, stream: TextIO, live: bool) -> None:
        self._rich = Rich(file=stream, force_terminal=live, highlight=False)
        self._view = View()
        self._live: Live | None = None
        if live:
            self._live = Live(self._view, console=self._rich, refresh_per_second=4, transient=True)
        self._told = -math.inf  # the time of the last line about steps

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._keep_last_step()
            self._live.stop()

    def recall(self, events: Iterable[Event]) -> None:
        """Takes over, without showing it, what happened before a run went on: its plan, losses, scores and sample."""
        for event in events:
            self._view.take(event)
        self._view.stage = self._view.step = None

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if self._live is None:
            self._tell(event)
            self._view.take(event)
        else:
            if isinstance(event, Stage) and event.state == "finished":
                self._keep_last_step()
            self._view.take(event)
            quiet = isinstance(event, (Saved, Step)) or (isinstance(event, Score) and self._view.step is not None)
            if not quiet and not (isinstance(event, Stage) and event.state == "started") and (text := line(event)):
                self._rich.print(Text.assemble(mark(event), " ", printable(text)))

    def _tell(self, event: Event) -> None:
        """A plain line; of steps one every few seconds, the first and the last ones too."""
        if isinstance(event, Step):
            plan = self._view.plan
            if event.time - self._told >= LINE_SECONDS or (plan and event.step == plan.steps):
                self._told = event.time
                self._print(step_line(event, plan))
        elif isinstance(event, Sample):
            self._print(f"step {event.step} writes:")
            for one in quoted(event, SAMPLE_LINES):
                self._print(f"  | {one}".rstrip())
        elif text := line(event):
            self._print(text)

    def _keep_last_step(self) -> None:
        """Where training stood, and what it wrote, stays on the screen when its panel goes."""
        if self._view.step is not None:
            self._rich.print(Text.assemble(("∙", "cyan"), " ", step_line(self._view.step, self._view.plan)))
            if self._view.sample is not None:
                for one in block(self._view.sample, SAMPLE_LINES):
                    self._rich.print(one)

    def _print(self, text: str) -> None:
        self._rich.print(Text(printable(text)), soft_wrap=True)
        self._rich.file.flush()


class View:
    """The live part: what is being worked on, drawn anew several times a second from the events so far."""

    def __init__(self) -> None:
        self.name = ""
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self.plan: Plan | None = None
        self.step: Step | None = None
        self.sample: Sample | None = None
        self.scores: list[Score] = []
        self._losses: deque[tuple[int, float]] = deque(maxlen=4000)
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._spinner = Spinner("dots", style="cyan")

    def take(self, event: Event) -> None:
        """Notes what an event changes."""
        match event:
            case Started(run=name):
                self.name = name
            case Stage(state=state):
                self.stage, self.progress = (event if state == "started" else None), None
                self.step = None
            case Progress():
                self.progress = event
            case Plan():
                self.plan = event
            case Resumed(step=step):
                self._losses = deque((one for one in self._losses if one[0] <= step), maxlen=self._losses.maxlen)
            case Step():
                self.step = event
                self._losses.append((event.step, event.loss))
                self._seconds.append(event.step_seconds)
            case Sample():
                self.sample = event
            case Score() if self.step is not None:
                self.scores.append(event)

    def __rich_console__(self, console: Rich, options: ConsoleOptions) -> RenderResult:
        if self.step is not None:
            width = min(options.max_width - 2, PANEL_COLUMNS)  # the terminal's echo of ^C must not begin a line
            yield self._training(self.step, width, options.size.height)
        elif self.stage is not None:
            self._spinner.update(text=self._working(self.stage))
            yield self._spinner

    def _working(self, stage: Stage) -> Text:
        text = Text.assemble((stage.name, "bold"), (f"  {printable(stage.why)}", "dim"))
        if self.progress is not None:
            of = f" of {show_count(self.progress.total)}" if self.progress.total else ""
            text.append(f"  {show_count(self.progress.done)}{of} {self.progress.unit}")
        if stage.time:
            text.append(f"  {show_seconds(max(time.time() - stage.time, 0))}", "dim")
        return text

    def _training(self, step: Step, width: int, height: int) -> Panel:
        total = self.plan.steps if self.plan else 0
        title = Text.assemble((printable(self.name) or "train", "bold"))
        left = Text(f"{show_seconds((total - step.step) * self._step_seconds())} left") if total > step.step else None
        parts: list[RenderableType] = [self._bar(step, total), "", self._numbers(step, width)]
        room = min(SAMPLE_LINES, height - 13)
        if self.sample is not None and room > 0:
            parts += ["", *block(self.sample, room)]
        return Panel(
            Padding(Group(*parts), (0, 1)), box=ROUNDED, border_style="cyan", width=width,
            title=title, title_align="left", subtitle=left, subtitle_align="right",
        )  # fmt: skip

    def _bar(self, step: Step, total: int) -> Table:
        row = Table.grid(expand=True, padding=(0, 1, 0, 0))
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        of = f" of {total:,}  {step.step / total:4.0%}" if total else ""
        bar = ProgressBar(total or None, step.step, complete_style="cyan", finished_style="green")
        row.add_row(bar, Text.assemble(("step ", "dim"), (f"{step.step:,}", "bold"), of))
        return row

    def _numbers(self, step: Step, width: int) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        bars = Text(spark([loss for _, loss in list(self._losses)], width - 36), style="cyan")
        table.add_row("loss", Text.assemble((f"{step.loss:.3f}", "bold"), " nats/token"), bars)
        if self.scores:
            first, now = self.scores[0], self.scores[-1]
            unit = "bits/byte" if now.name == "bits per byte" else now.unit
            since = f", from {first.value:.3f}" if first is not now else ""
            told = Text(f"held out, after step {now.step:,}{since}", style="dim")
            table.add_row("score", Text.assemble((f"{now.value:.3f}", "bold"), f" {unit}"), told)
        share = f"{step.flops_fraction:.0%} of the measured peak, {show_count(step.tokens)} tokens so far"
        table.add_row("speed", f"{show_count(step.tokens_per_second)} tokens/s", Text(share, style="dim"))
        rate = f"learning rate {step.learning_rate:.2g}, memory {show_bytes(step.memory_bytes)}"
        table.add_row("gradient", f"norm {step.gradient_norm:.2f}", Text(rate, style="dim"))
        return table

    def _step_seconds(self) -> float:
        return statistics.median(self._seconds)


def quoted(sample: Sample, lines: int) -> list[str]:
    """The first lines of a prompt and what was written after it, harmless to a terminal, empty ones at most in ones."""
    whole = printable(sample.prompt + sample.text).expandtabs(4).strip("\n")
    return re.sub(r"\n(\s*\n)+", "\n\n", whole).splitlines()[:lines]


def block(sample: Sample, lines: int) -> list[Text]:
    """A sample as a quoted block."""
    head = Text(f"after step {sample.step:,} it writes", style="dim")
    return [
        head,
        *(Text.assemble(("▌ ", "cyan"), one, no_wrap=True, overflow="ellipsis") for one in quoted(sample, lines)),
    ]


def mark(event: Event) -> tuple[str, str]:
    """A glyph and its style, before an event's line on a terminal."""
    if isinstance(event, Stage):
        return MARKS[event.state]
    if isinstance(event, Released):
        return "★", "yellow"
    warns = isinstance(event, Skipped | Corrupted | Lost) or (isinstance(event, Notice) and event.level == "warning")
    return ("!", "yellow") if warns else ("∙", "cyan")


def spark(values: list[float], width: int) -> str:
    """A line of bars: means over equal stretches; the highest tenth is clipped, or the first steps would hide the rest.

    What is no number is left out.
    """
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2 or width < 1:
        return ""
    count = min(width, len(values))
    cuts = [round(i * len(values) / count) for i in range(count + 1)]
    means = [statistics.fmean(values[start:stop]) for start, stop in pairwise(cuts)]
    low, high = min(means), sorted(means)[int(len(means) * 0.9)]
    return "".join(BARS[max(min(int((value - low) / ((high - low) or 1) * 8), 7), 0)] for value in means)


def spent(event: Accounts) -> str:
    """Where the time and the energy of a run's training went."""
    parts = ", ".join(f"{name} {share:.0%}" for name, share in event.parts.items() if share >= 0.005)
    again = f", {show_seconds(event.repeated_seconds)} were spent again" if event.repeated_seconds else ""
    energy = "" if event.energy_joules is None else f"; {event.energy_joules / 3.6e6:.3g} kWh"
    goodput = f"{event.goodput:.0%} of {show_seconds(event.wall_seconds)} became tokens that are kept{again}"
    return f"accounts: {goodput}; steps: {parts}{energy}"


def step_line(step: Step, plan: Plan | None) -> str:
    """A step in a line."""
    of = f" of {plan.steps}" if plan else ""
    left = (
        f", {show_seconds((plan.steps - step.step) * step.step_seconds)} left"
        if plan and plan.steps > step.step
        else ""
    )
    speed = f"{show_count(step.tokens_per_second)} tokens/s, {step.flops_fraction:.0%} of peak"
    if step.vendor_flops_fraction:
        speed += f" ({step.vendor_flops_fraction:.0%} of the vendor's)"
    return f"step {step.step}{of}: loss {step.loss:.3f}, {speed}{routed(step)}{left}"


def routed(step: Step) -> str:
    """What the routers did, where there are any: the busiest expert of all layers, and how many stood idle."""
    if not step.expert_load:
        return ""
    dead = f", {sum(step.experts_dead)} idle" if any(step.experts_dead) else ""
    return f", busiest expert {max(step.expert_load):.1f}x the mean{dead}"


def mixture(event: Mixture) -> str:
    """How often each source is read, a line each: by phase, in all, and where it runs dry."""
    columns = [f"from {start:,}" for start in event.starts] if len(event.starts) > 1 else []
    rows = [["", *columns, "in all"]]
    for source, parts in event.epochs.items():
        rows.append([source, *(f"{part:.3g}" for part in parts if columns), f"{sum(parts):.3g}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for source, step in event.dry.items():
        lines.append(f"{source} runs dry: from step {step:,} on its share goes to the others")
    steps = " by the step from which on" if columns else ""
    return f"mixture: times that each source is read{steps}\n  " + "\n  ".join(lines)


def line(event: Event) -> str:
    """An event in a line (a mixture in a few); "" for one that a person need not see."""
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
            many = f", {event.ranks} ranks ({event.layout})" if event.ranks > 1 else ""
            return f"machine: {device}, {threads} threads, {precision}, {show_flops(flops)} in matrix products{many}"
        case Health(state=state, text=text):
            return f"{'warning: ' if state == 'slow' else ''}health: {text}"
        case Plan(steps=steps, tokens=tokens, parameters=parameters, active_parameters=active, why=why):
            met = f" ({show_count(active)} active)" if 0 < active < parameters else ""
            return (
                f"plan: {show_count(parameters)} parameters{met}, {steps:,} steps, {show_count(tokens)} tokens ({why})"
            )
        case Mixture():
            return mixture(event)
        case Communication(step=step, fraction=share, exposed_fraction=exposed):
            return f"train: ranks speak for {share:.0%} of step {step}, for {exposed:.0%} while nothing is computed"
        case Accounts():
            return spent(event)
        case Resumed(step=step, layout=layout, saved_layout=before):
            moved = f", saved on {before}, on {layout}" if before and before != layout else ""
            return f"train: goes on from step {step}{moved}"
        case Skipped(step=step, after=after, position=position, rows=rows, why=why):
            back = "" if after == step - 1 else f"; it goes on from step {after}"
            return f"train: rows {position:,} to {position + rows - 1:,} are passed over: {why} at step {step}{back}"
        case Lost(shard=shard):
            return f"train: {shard} is lost, and training goes on without it: {event.text}"
        case Corrupted(step=step, tensors=tensors, ranks=ranks, places=places):
            named = ", ".join(f"rank {rank} ({place})" for rank, place in zip(ranks, places, strict=True))
            return f"train: {named} held other bits of {', '.join(tensors[:3])} after step {step}"
        case Restarted(text=text) | Hung(text=text) | Slow(text=text):
            return f"warning: {text}"
        case Changed(step=step, what=what):
            return f"train: from step {step} on, {what}"
        case Saved(step=step, save_seconds=stood, saved_bytes=size, write_seconds=seconds):
            written = f"{show_bytes(size)} in {show_seconds(seconds)}"
            return f"saved: step {step}, {written}, of which training stood still for {show_seconds(stood)}"
        case Score(name=name, value=value, unit=unit, split=split):
            return f"score: {name}, {split}: {value:.3f} {unit}"
        case Notice(level=level, text=text):
            return f"{'warning: ' if level == 'warning' else ''}{text}"
        case Released(folder=folder, logit_difference=difference):
            within = f" within {difference:.0e}" if difference else ""
            return f"released: {folder} (logits equal to the checkpoint's{within})"
    return ""


def summary(directory: Path, program: str = "pretrain") -> str:
    """What a run came to: where things are, the scores beside their baselines, and what to try next.

    `program` is what a person types for the command.
    """
    run = RunDirectory(directory)
    near = str(directory.relative_to(Path.cwd())) if directory.is_relative_to(Path.cwd()) else str(directory)
    scores = {score.name: score for score in all_of(run, Score) if "estimate" not in score.split}
    lines = [
        "",
        f"The run is in {near}: {', '.join(name for name in HELD if (directory / name.strip('/')).exists())}",
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
    stage = last(run, Stage)
    if stage and stage.name == "corpus":
        lines += ["", "Try next:", f"  {program} inspect {shlex.quote(near)} --html page.html"]
    elif last(run, Released):
        quoted = shlex.quote(near)
        written = last(run, Sample)
        prompt = (written.prompt.splitlines() or [""])[-1] if written else "The"
        prompt = shlex.quote(prompt or "The")
        config = run.release / "config.json"
        goes_on = not config.is_file() or json.loads(config.read_bytes()).get("is_causal", True)
        lines += ["", "Try next:", *([f"  {program} sample {quoted} {prompt} --tokens 120"] if goes_on else [])]
        lines += [f"  {program} evaluate {quoted} --data FILE", f"  cat {shlex.quote(near + '/release/README.md')}"]
    return "\n".join(lines)
