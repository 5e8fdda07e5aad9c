"""Which rows each step of a run consumed, from its events: also between logged steps, over resumes and new batches,
and where rows were passed over."""

import json
from bisect import bisect_right
from dataclasses import dataclass

from pretrain.base.remote import place
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Resumed, Saved, Skipped, Stage, Step
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
    """The stretches that the weights went through, and those that the plan adds; the last step and row so far; what was
    passed over between them."""

    stretches: tuple[Stretch, ...]
    step: int
    position: int
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def of(cls, run: RunDirectory, planned: int, rows: int) -> "Taken":
        """From a run's events, to the planned last step with `rows` rows a step."""
        stretches, (step, position), skipped = list[Stretch](), (0, 0), list[Skipped]()
        for one in _ends(run):
            last, end, event = one.step, one.position, one.event
            own = event.rows if isinstance(event, Step) else 0
            unlogged = last - step - (1 if own else 0)
            if unlogged:  # between two events the batch is the same: what changes a run is said where it goes on
                stretches.append(Stretch(step + 1, step + unlogged, position, (end - own - position) // unlogged))
            if own:
                stretches.append(Stretch(last, last, end - own, own))
            step, position = last, end
            if isinstance(event, Skipped):
                skipped.append(event)
                position += event.rows
        if planned > step:
            stretches.append(Stretch(step + 1, planned, position, rows))
        return cls(tuple(stretches), step, position, tuple(skipped))

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


@dataclass(frozen=True)
class _End:
    """The position after a step; where rows were passed over there, or the step was logged, the event."""

    step: int
    position: int
    event: Step | Skipped | None = None


def _ends(run: RunDirectory) -> list[_End]:
    """Wherever the log or the newest checkpoint tells the position after a step, in order.

    Where a run goes on from a checkpoint, or from nothing, what it had done after that is undone.
    """
    ends, saved, anew, folder = list[_End](), 0, False, ""
    for event in read(run):
        match event:
            case Stage(name="train", state="started"):
                anew = True
                continue
            case Saved(step=step, folder=folder):
                saved = step
                continue
            case Step(step=step):
                kept, own = 0 if anew else step - 1, _End(step, event.position + event.rows, event)
            case Resumed(step=kept):
                own = _End(kept, event.position)
            case Skipped(after=kept):
                own = _End(kept, event.position, event)
            case _:
                continue
        anew, saved = False, min(saved, kept)
        while ends and (ends[-1].step > kept or _covers(own, ends[-1])):
            ends.pop()
        if not isinstance(event, Resumed) or kept > (ends[-1].step if ends else 0):
            ends.append(own)
    if saved > (ends[-1].step if ends else 0):
        name = f"step-{saved:08d}"  # in the run, wherever that is now, or where it was told to lie
        for path in (run.checkpoints / name, place(folder)):
            if path.name == name and (path / "state.json").is_file():
                ends.append(_End(saved, json.loads((path / "state.json").read_bytes())["position"]))
                break
    return ends


def _covers(now: _End, before: _End) -> bool:
    """Whether rows that were passed over lie after where a run goes on now."""
    return isinstance(before.event, Skipped) and before.position >= now.position
