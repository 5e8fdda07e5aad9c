"""What can happen in a run: frozen dataclasses with units in their field names; in JSON `kind` names the class."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Event:
    """A fact that happened; `time` (seconds since 1970) is set when it is written to a log."""

    time: float = field(default=0.0, kw_only=True)


@dataclass(frozen=True)
class Started(Event):
    """A command began to work on a run."""

    run: str
    recipe_digest: str
    command: str
    pretrain_version: str


@dataclass(frozen=True)
class Stage(Event):
    """A stage of the run began, ended, or was not needed, and why."""

    name: str
    state: Literal["started", "finished", "reused", "skipped"]
    why: str
    folder: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress(Event):
    """How far counted work has come; `total` is 0 where it is not known."""

    stage: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Machine(Event):
    """What the machine can do, measured before training."""

    device: str
    threads: int
    precision: str
    matmul_flops_per_second: float
    memory_bytes: int
    ranks: int = 1
    layout: str = ""
    name: str = ""
    vendor_flops_per_second: float = 0.0  # of one device in the run's precision, by its data sheet; 0: not known


@dataclass(frozen=True)
class Health(Event):
    """A rank's device or link was slow beside the others', or wrong: `text` says it in words.

    `value` is FLOP/s, bytes/s or seconds and `usual` that of the others; where it is wrong, how many answers were.
    """

    rank: int
    hosts: list[str]
    device: str
    what: str
    state: Literal["slow", "wrong"]
    value: float
    usual: float
    text: str


@dataclass(frozen=True)
class Plan(Event):
    """How long training will be, and how that was decided."""

    steps: int
    tokens: int
    parameters: int
    step_seconds: float
    why: str
    active_parameters: int = 0  # those that a token meets


@dataclass(frozen=True)
class Mixture(Event):
    """How often each source will have been read when the run ends, as far as it is planned.

    `epochs` are of each phase, whose first steps `starts` holds; from its step in `dry` on a source is left out.
    """

    starts: list[int]
    epochs: dict[str, list[float]]
    dry: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Event):
    """An optimizer step: rows `position` to `position + rows` of the order.

    Of layers with experts: tokens of the busiest expert over the mean, experts that no token chose, and the mean
    entropy of a token's shares.
    """

    step: int
    position: int
    rows: int
    tokens: int
    loss: float
    gradient_norm: float
    learning_rate: float
    step_seconds: float
    tokens_per_second: float
    flops_per_second: float
    flops_fraction: float
    memory_bytes: int
    data_wait_fraction: float = 0.0  # of the time since the step event before, spent waiting for batches
    vendor_flops_fraction: float = 0.0  # of what the vendors of all devices state; 0: not known
    parts: dict[str, float] = field(default_factory=dict)  # shares of the time since the step event before
    energy_joules: float | None = None  # of all devices that report it, since the step event before
    losses: dict[str, float] = field(default_factory=dict)
    expert_load: list[float] = field(default_factory=list)
    experts_dead: list[int] = field(default_factory=list)
    router_entropy: list[float] = field(default_factory=list)  # nats
    tokens_dropped: int = 0  # by routers: none, by construction


@dataclass(frozen=True)
class Communication(Event):
    """How much of a step was ranks speaking, from a profile of it; and how much of that no arithmetic hid."""

    step: int
    fraction: float
    exposed_fraction: float


@dataclass(frozen=True)
class Accounts(Event):
    """Where the time and the energy of a run's training went, from its first start to its last step."""

    wall_seconds: float
    kept_seconds: float
    repeated_seconds: float
    saving_seconds: float
    goodput: float
    parts: dict[str, float]  # shares of the time of all steps that were told of
    energy_joules: float | None


@dataclass(frozen=True)
class Sample(Event):
    """Text that the model wrote after a step."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Score(Event):
    """A measured quality: of the model after a step, or of a baseline (step 0)."""

    step: int
    name: str
    value: float
    unit: str
    split: str
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written, synced and read back."""

    step: int
    folder: str
    save_seconds: float  # that training stood still for it
    saved_bytes: int
    write_seconds: float = 0.0  # until it was whole, most of them while training went on


@dataclass(frozen=True)
class Pruned(Event):
    """An old checkpoint was removed by rule."""

    step: int
    folder: str


@dataclass(frozen=True)
class Resumed(Event):
    """Training goes on from a checkpoint, perhaps on another layout than it was written on."""

    step: int
    position: int
    folder: str
    layout: str = ""
    saved_layout: str = ""


@dataclass(frozen=True)
class Skipped(Event):
    """Rows `position` to `position + rows` of the order were passed over: no weight has learned from them.

    The last batch among them was to be step `step`; `after` is the last step that stands, an earlier one where training
    went back to a checkpoint. Loss and norm are of that batch, none where they are no number.
    """

    step: int
    after: int
    position: int
    rows: int
    loss: float | None
    gradient_norm: float | None
    why: str


@dataclass(frozen=True)
class Corrupted(Event):
    """Ranks that hold the same part of `tensors` held other bits than most of those that do; where no bits were most of
    them's, all are named. `places` are their hosts and devices; at least `holders` ranks held each part."""

    step: int
    tensors: list[str]
    ranks: list[int]
    places: list[str]
    holders: int


@dataclass(frozen=True)
class Lost(Event):
    """A shard of a source cannot be read, and why: what rows still hold of its tokens counts nothing from here on."""

    source: str
    shard: str
    why: str
    documents: int
    tokens: int

    @property
    def text(self) -> str:
        """What is lost, in words."""
        return f"{self.why}: {self.documents:,} documents of the source {self.source!r}, {self.tokens:,} tokens"


@dataclass(frozen=True)
class Restarted(Event):
    """A machine's ranks are started again, since one ended before its time: how, and what is lost.

    `exit_code` is minus the number of a signal that ended it; `step` was the last told and `saved_step` is gone back
    to (-1: nothing was saved); `lost_seconds` were spent since on what is done again, or on waiting.
    """

    rank: int
    node: str
    exit_code: int
    step: int
    saved_step: int
    lost_seconds: float
    text: str


@dataclass(frozen=True)
class Hung(Event):
    """No step ended for too long: where each rank stood, as far as it still answered, and which one is to blame."""

    step: int
    waited_seconds: float
    ranks: list[dict[str, object]]
    text: str


@dataclass(frozen=True)
class Slow(Event):
    """A rank's own work takes longer than the others', window after window; a step's seconds, waits left out."""

    rank: int
    node: str
    step: int
    own_seconds: float
    usual_seconds: float
    where: str
    text: str


@dataclass(frozen=True)
class Changed(Event):
    """The recipe of a run that goes on says something else from this position on."""

    step: int
    position: int
    what: str


@dataclass(frozen=True)
class Notice(Event):
    """Something that a person should know, in one sentence."""

    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True)
class Fault(Event):
    """What stopped the run, in one line."""

    text: str


@dataclass(frozen=True)
class Released(Event):
    """A released folder was written and proved equal to its checkpoint."""

    folder: str
    digest: str
    logit_difference: float


@dataclass(frozen=True)
class Finished(Event):
    """The command came to its end."""

    seconds: float
    folder: str


def kind(cls: type[Event]) -> str:
    """The name of an event in JSON: `Step` -> "step"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


KINDS = {kind(cls): cls for cls in Event.__subclasses__()}


def to_json(event: Event) -> dict[str, object]:
    """The event as a JSON table, its kind first."""
    return {"kind": kind(type(event)), **dataclasses.asdict(event)}


def from_json(table: dict[str, object]) -> Event | None:
    """The event of a JSON table; None for a kind, and without the fields, that this version does not know."""
    cls = KINDS.get(str(table.get("kind")))
    if cls is None:
        return None
    known = {f.name for f in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in table.items() if name in known})  # type: ignore[arg-type]
