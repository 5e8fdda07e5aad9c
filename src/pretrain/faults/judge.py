"""Whether a run with a fault ended as it should: what is known of it beside what is known of the run without."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from pretrain.base.remote import Place
from pretrain.checkpoint.pieces import Saved
from pretrain.checkpoint.save import newest, step_of
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Corrupted, Event, Hung, Notice, Restarted, Resumed, Skipped, Slow, Stage, Step
from pretrain.events.read import read
from pretrain.train.copies import sentence

ROUNDING = 1e-3  # of a tensor's norm, by which weights of other layouts may differ after a whole run in fp32
Weights = Literal["same", "rounding", "skipped"]


@dataclass(frozen=True)
class Facts:
    """What a run has left: its exit codes in order (None: it did not end), log, last checkpoint."""

    exits: tuple[int | None, ...]
    events: Sequence[Event]
    weights: dict[str, Tensor]
    step: int = -1  # of these weights

    @property
    def seconds(self) -> float:
        """From the beginning of training to the last word."""
        begins = [one.time for one in self.events if isinstance(one, Stage) and one.name == "train"]
        return self.events[-1].time - begins[0] if begins else 0.0

    @property
    def steps(self) -> dict[int, Step]:
        """As they finally stood."""
        return {one.step: one for one in self.events if isinstance(one, Step)}


@dataclass(frozen=True)
class Expected:
    """What a scenario holds to: exit codes, how weights may differ, and what the log names (patterns)."""

    exits: tuple[int, ...] = (0,)
    weights: Weights = "same"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Of a scenario: what the log named, seconds lost, how weights compare; `wrong` is empty where it holds."""

    scenario: str
    named: str
    lost_seconds: float
    weights: str
    wrong: tuple[str, ...]

    @property
    def text(self) -> str:
        """In a line."""
        ends = "; ".join(self.wrong) if self.wrong else f"{self.weights}, {self.lost_seconds:.0f} s lost"
        return f"{self.scenario}: {'does not hold' if self.wrong else 'holds'}: {ends}"


def facts_of(run: RunDirectory, exits: Sequence[int | None]) -> Facts:
    """Read from a run's folder."""
    path: Place | None = newest(run.checkpoints)[0] if run.checkpoints.exists() else None
    events = list(read(run))
    if path is None:
        return Facts(tuple(exits), events, {})
    saved = Saved(path, "model")
    return Facts(tuple(exits), events, {name: saved.whole(name) for name in saved.names()}, step_of(path))


def named(events: Sequence[Event]) -> list[str]:
    """What a log says of faults, a sentence each."""
    found = []
    for event in events:
        match event:
            case Restarted(text=text) | Hung(text=text) | Slow(text=text) | Notice(level="warning", text=text):
                found.append(text)
            case Stage(name=name, state="started", why=why) if "damaged" in why:
                found.append(f"{name} are made again: {why}")
            case Skipped(step=step, position=start, rows=rows, why=why):
                found.append(f"rows {start} to {start + rows - 1} are passed over: {why} at step {step}")
            case Corrupted(step=step, tensors=tensors, ranks=ranks, places=places, holders=holders):
                found.append(sentence(step, tensors, ranks, places, holders))
            case Resumed(step=step, layout=layout, saved_layout=before):
                moved = f", saved on {before}, on {layout}" if before != layout else ""
                found.append(f"goes on from step {step}{moved}")
    return found


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest over tensors of |a - b| / |a|; 0 if and only if all bits are the same."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return float("inf")
    worst = 0.0
    for name, one in a.items():
        if not one.equal(b[name]):
            x, y = one.double(), b[name].double()
            far = float(torch.linalg.vector_norm(x - y) / torch.linalg.vector_norm(x).clamp_min(1e-30))
            worst = max(worst, far) if far == far else float("inf")
    return worst


def judge(scenario: str, expected: Expected, plain: Facts, hurt: Facts) -> Verdict:
    """Holds what a fault left against what is expected of it, and against the run without."""
    said, wrong = named(hurt.events), list[str]()
    if hurt.exits != expected.exits:
        wrong.append(f"its exit codes are {_codes(hurt.exits)}, expected {_codes(expected.exits)}")
    wrong += [
        f"the log does not say {_words(one)!r}"
        for one in expected.names
        if not any(re.search(one, line) for line in said)
    ]
    far = difference(plain.weights, hurt.weights)
    weights = "weights are the same to the last bit" if far == 0 else f"weights differ by {far:.1e}"
    if not hurt.weights or hurt.step != plain.step:
        wrong.append(f"it ended at step {hurt.step} of {plain.step}")
    elif expected.weights == "same" and far > 0:
        wrong.append(f"{weights}, expected the same bits")
    elif expected.weights == "rounding" and far > ROUNDING:
        wrong.append(f"{weights}, expected at most {ROUNDING:.0e}")
    elif expected.weights == "skipped":
        wrong += _skipped(plain, hurt)
        weights = "steps are the same up to the batch that was passed over, and all rows after it are learned"
    return Verdict(scenario, "; ".join(said), max(hurt.seconds - plain.seconds, 0.0), weights, tuple(wrong))


def _words(pattern: str) -> str:
    """A pattern as a person would write it."""
    signs = ((r"[\d.]+", "N"), (r"\d+", "N"), (r"\S+", "NODE"), (".*", "…"), (r"\(", "("))
    return reduce(lambda text, sign: text.replace(*sign), signs, pattern)


def _codes(exits: Sequence[int | None]) -> str:
    return " and ".join("none in time" if one is None else str(one) for one in exits) or "none"


def _skipped(plain: Facts, hurt: Facts) -> list[str]:
    """What is wrong where exactly one batch should have been passed over."""
    before = {one.position for one in plain.events if isinstance(one, Skipped)}
    every = [one for one in hurt.events if isinstance(one, Skipped) and one.position not in before]
    if len(every) != 1:
        return [f"{len(every)} batches were passed over, expected 1"]
    (skip,), wrong = every, []
    usual, found = plain.steps, hurt.steps
    if any(found[step].loss != usual[step].loss for step in usual if step <= skip.after and step in found):
        wrong.append(f"losses differ before step {skip.step}, where a batch was passed over")
    if any(found[step].position != usual[step].position + skip.rows for step in usual if step > skip.after):
        wrong.append("other rows than those of the batch were passed over too")
    if any(not bool(one.isfinite().all()) for one in hurt.weights.values()):
        wrong.append("weights are no numbers")
    return wrong
