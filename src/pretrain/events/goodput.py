"""Goodput: the share of a run's wall time that became tokens it has kept (Barham et al. 2022 for MFU; Wongpanich et al.
2024, "ML productivity goodput")."""

from collections.abc import Iterable
from dataclasses import dataclass

from pretrain.events.kinds import Accounts, Event, Finished, Saved, Stage, Started, Step


@dataclass(frozen=True)
class Goodput:
    """Seconds of training, first start to last step, and what became of them; the rest is starts, evaluation, what an
    interruption cost and what a killed process had not told. From the end of a command that did all it was asked for to
    the next one is no time of the run's."""

    wall: float
    kept: float  # of steps that stand
    repeated: float  # of steps that were taken again after a restart
    saving: float  # that training stood still for

    @property
    def share(self) -> float:
        """Kept over wall."""
        return self.kept / self.wall if self.wall else 0.0


def goodput(events: Iterable[Event]) -> Goodput:
    """Of all events of a run, in order."""
    first = last = spent = saving = ended = away = 0.0
    taken: list[tuple[int, float]] = []  # a step that was told of, and the seconds since the one before
    before = 0  # the step that the next one follows
    for event in events:
        if isinstance(event, Saved | Step):
            last, first, away = max(last, event.time), first + away, 0.0  # as if it had begun later
        if isinstance(event, Stage) and event.name == "train" and event.state == "started":
            first = first or event.time
            before = -1
        elif isinstance(event, Finished):
            ended = event.time if first else 0.0
        elif isinstance(event, Started) and ended:
            away, ended = away + event.time - ended, 0.0
        elif isinstance(event, Saved):
            saving += event.save_seconds
        elif isinstance(event, Step):
            while taken and taken[-1][0] >= event.step:
                taken.pop()
            before = taken[-1][0] if before < 0 and taken else max(before, 0)
            seconds = event.step_seconds * (event.step - before)
            taken.append((event.step, seconds))
            spent, before = spent + seconds, event.step
    kept = sum(seconds for _, seconds in taken)
    return Goodput(max(last - first, 0.0) if first else 0.0, kept, spent - kept, saving)


def accounts(events: Iterable[Event]) -> Accounts:
    """Where the time and energy of a run went, from all its events."""
    every = list(events)
    found, parts, energy = goodput(every), dict[str, float](), list[float]()
    spent, before = 0.0, 0
    for event in every:
        if isinstance(event, Step):
            seconds = event.step_seconds * max(event.step - before, 1)
            before, spent = event.step, spent + seconds
            for name, share in event.parts.items():
                parts[name] = parts.get(name, 0.0) + share * seconds
            energy += [event.energy_joules] if event.energy_joules is not None else []
    shares = {name: round(seconds / (spent or 1.0), 4) for name, seconds in parts.items()}
    joules = sum(energy) if energy else None
    return Accounts(found.wall, found.kept, found.repeated, found.saving, found.share, shares, joules)
