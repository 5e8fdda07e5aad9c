"""Which rows each step of a run consumed, from its events: also between logged steps, over resumes and new batches."""

import json
from bisect import bisect_right
from dataclasses import dataclass

from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Resumed, Saved, Stage, Step
from pretrain.events.read import read


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to `last`, each over `rows` rows, one after the other from `position` on."""

    first: int
    last: int
    position: int
    rows: int


@dataclass(frozen=True)
class Taken:
    """The stretches that the weights went through, and those that the plan adds; the last step and row so far."""

    stretches: tuple[Stretch, ...]
    step: int
    position: int

    @classmethod
    def of(cls, run: RunDirectory, planned: int, rows: int) -> "Taken":
        """From a run's events, to the planned last step with `rows` rows a step."""
        ends, logged = _ends(run)
        stretches, (step, position) = list[Stretch](), (0, 0)
        for last, end in ends:
            event = logged.get(last)
            own = event.rows if event and event.position + event.rows == end else 0
            unlogged = last - step - (1 if own else 0)
            if unlogged:  # between two events the batch is the same: what changes a run is said where it goes on
                stretches.append(Stretch(step + 1, step + unlogged, position, (end - own - position) // unlogged))
            if own:
                stretches.append(Stretch(last, last, end - own, own))
            step, position = last, end
        if planned > step:
            stretches.append(Stretch(step + 1, planned, position, rows))
        return cls(tuple(stretches), step, position)

    @property
    def planned(self) -> int:
        """The last step, taken or to come."""
        return self.stretches[-1].last if self.stretches else 0

    @property
    def end(self) -> int:
        """The position after the last step, taken or to come."""
        if not self.stretches:
            return 0
        last = self.stretches[-1]
        return last.position + (last.last - last.first + 1) * last.rows

    def rows_of(self, step: int) -> range:
        """The positions of a step between 1 and `planned`."""
        one = self.stretches[bisect_right(self.stretches, step, key=lambda stretch: stretch.first) - 1]
        start = one.position + (step - one.first) * one.rows
        return range(start, start + one.rows)

    def step_at(self, position: int) -> int | None:
        """The step that consumed a position, None where it was skipped."""
        found = bisect_right(self.stretches, position, key=lambda stretch: stretch.position) - 1
        one = self.stretches[found]
        step = one.first + (position - one.position) // max(one.rows, 1)
        return step if step <= one.last else None


def _ends(run: RunDirectory) -> tuple[list[tuple[int, int]], dict[int, Step]]:
    """(step, position after it) wherever the log or the newest checkpoint tells it, in order; the logged steps.

    Where a run goes on from a checkpoint, or from nothing, what it had done after that is undone.
    """
    ends, logged, saved, anew = list[tuple[int, int]](), dict[int, Step](), 0, False
    for event in read(run):
        kept: int | None = None
        match event:
            case Stage(name="train", state="started"):
                anew = True
            case Resumed(step=step):
                kept, anew = step, False
            case Step(step=step):
                kept, anew = 0 if anew else step - 1, False
            case Saved(step=step):
                saved = step
        if kept is not None:
            while ends and ends[-1][0] > kept:
                logged.pop(ends.pop()[0], None)
            saved = min(saved, kept)
        if isinstance(event, Step):
            ends.append((event.step, event.position + event.rows))
            logged[event.step] = event
        elif isinstance(event, Resumed) and event.step > (ends[-1][0] if ends else 0):
            ends.append((event.step, event.position))
    state = run.checkpoints / f"step-{saved:08d}" / "state.json"
    if saved > (ends[-1][0] if ends else 0) and state.exists():
        ends.append((saved, json.loads(state.read_bytes())["position"]))
    return ends, logged
