"""Pipeline parallelism: a stage keeps its part of the stack, and hands hidden states on and their gradients back.

The weight table is filtered by what a stage keeps. Where two weights are one, a stage that uses either keeps both: a
tied weight lies on the first stage and on the last, and their gradients are added up. So does an embedding that modules
which look ahead need again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from pretrain.model.ahead import every_block
from pretrain.model.count import training_flops_per_token
from pretrain.model.decoder import Output
from pretrain.model.layers.experts import Router
from pretrain.model.weights import Axis, Weight, local
from pretrain.objective.cross_entropy import Loss
from pretrain.parallel.schedule import Message, cut, handed, messages, schedule

BEFORE = ("embed", "places", "kinds", "embed_norm")  # what stands before the blocks of a stack
AFTER = ("norm", "transform", "head")  # and after them


@dataclass(frozen=True)
class Stages:
    """This rank's stage among those of a pipeline, each with so many chunks of the stack; and the groups in which they
    talk: messages to later stages go through one, to earlier ones through the other, so that neither waits."""

    place: int
    size: int
    chunks: int
    groups: tuple[ProcessGroup, ProcessGroup]

    @property
    def parts(self) -> int:
        """Of the stack, of all stages; part i is a chunk of stage i mod size."""
        return self.size * self.chunks

    def send(self, tensor: Tensor, to: int) -> Any:
        """Begins to."""
        return dist.isend(tensor, group=self.groups[to < self.place], group_dst=to)

    def receive(self, tensor: Tensor, source: int) -> Tensor:
        """Fills a tensor."""
        dist.recv(tensor, group=self.groups[self.place < source], group_src=source)
        return tensor

    def say(self, tensor: Tensor, source: int) -> Tensor:
        """What a stage has, on all of them."""
        tensor = tensor.contiguous()
        dist.broadcast(tensor, group=self.groups[0], group_src=source)
        return tensor

    def told(self, loss: Loss) -> Loss:
        """The last stage's, on all of them."""
        return Loss(self.say(loss.total, self.size - 1), self.say(loss.count, self.size - 1))


class Elsewhere(nn.Module):
    """Stands where another stage holds a module; `routers` has the number of experts of each router in it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.routers = [len(one.weight) for one in module.modules() if isinstance(one, Router)]


class HeadElsewhere(Elsewhere):
    """Logits are those that the last stage makes; they have no backward."""

    def __init__(self, module: nn.Linear, stages: Stages) -> None:
        super().__init__(module)
        self.vocab, self.stages = module.out_features, stages

    def forward(self, hidden: Tensor) -> Tensor:
        """[…, vocab] of hidden states […, embed]."""
        return self.stages.say(hidden.new_empty(*hidden.shape[:-1], self.vocab), self.stages.size - 1)


def split(model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], stages: Stages) -> list[Weight]:
    """Leaves a stage its chunks of the stack; returns the rows of what it keeps, of `rows` of one weight each."""
    blocks: nn.ModuleList = model.blocks  # type: ignore[assignment]
    ahead = len(getattr(model, "ahead", ()))
    heads = [weight for weight in rows if weight.name == "head.weight"] * ahead  # each module goes through it again
    parts = cut(costs([*rows, *heads], axes, len(blocks)), stages.parts)
    kept = {number for part in parts[stages.place :: stages.size] for number in part}

    def here(name: str) -> bool:
        first, _, rest = name.partition(".")
        if first == "blocks":
            return int(rest.partition(".")[0]) in kept
        last = stages.place == stages.size - 1
        return last if first not in BEFORE else stages.place == 0 or (last and ahead > 0 and first == "embed")

    pairs = [(weight.name, weight.tied) for weight in rows if weight.tied is not None]
    shared = {name: model.get_parameter(one) for one, two in pairs if here(one) or here(two) for name in (one, two)}
    for name in (name for name in (*BEFORE, *AFTER) if getattr(model, name, None) is not None and not here(name)):
        module = model.get_submodule(name)
        setattr(model, name, HeadElsewhere(module, stages) if isinstance(module, nn.Linear) else Elsewhere(module))
    for name, module in every_block(model):
        if not here(name):
            model.set_submodule(name, Elsewhere(module))
    for name, parameter in shared.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, parameter)
    return [weight for weight in rows if here(weight.name) or weight.name in shared]


def costs(rows: Sequence[Weight], axes: Mapping[str, Axis], layers: int) -> list[float]:
    """Arithmetic of each block's matrices a token, the last with what stands after it."""
    own: list[list[Weight]] = [[] for _ in range(layers)]
    for weight in rows:
        first, number, *_ = weight.name.split(".")
        own[int(number) if first == "blocks" else 0 if first in BEFORE else layers - 1].append(weight)
    return [training_flops_per_token(some, axes, 0, 0) for some in own]


def join(model: nn.Module, axes: Mapping[str, Axis], stages: Stages) -> None:
    """Where no gradient is asked for, a call of the model or of its head gives all stages what the whole one would."""
    width, head = axes["embed"][0] * axes["embed"][1], model.head
    model.forward = partial(_through, model.forward, chunks(model), width, wide(model), stages)

    def said(module: nn.Module, given: tuple[Tensor], logits: Tensor) -> Tensor:
        return stages.say(logits.to(given[0].dtype), stages.size - 1)

    if not isinstance(head, HeadElsewhere):
        head.register_forward_hook(said)  # type: ignore[union-attr]
    head.told = stages.told  # type: ignore[union-attr]


def _through(
    inner: Callable[..., Any],
    own: Sequence[range],
    width: int,
    dtype: torch.dtype,
    stages: Stages,
    tokens: Tensor,
    *,
    part: range | None = None,
    **options: Any,
) -> Any:
    """A part of the stack; or all of it, one after another, every stage with the hidden states of each part;
    those of modules that look ahead only where they are."""
    if part is not None:
        return inner(tokens, part=part, **options)
    hidden: Tensor | None = None
    ahead: tuple[Tensor, ...] = ()
    for number in range(stages.parts):
        if number % stages.size == stages.place:
            made = inner(tokens, part=own[number // stages.size], hidden=hidden, **options)
            out, ahead = made.hidden.to(dtype), made.ahead
        else:
            out = torch.empty(*tokens.shape, width, dtype=dtype, device=tokens.device)
        hidden = stages.say(out, number % stages.size)
    assert hidden is not None
    return Output(hidden, hidden.new_zeros(0), ahead)


def chunks(model: nn.Module) -> list[range]:
    """The runs of blocks that are here."""
    out: list[range] = []
    for number, block in enumerate(model.blocks):  # type: ignore[arg-type]
        if not isinstance(block, Elsewhere):
            begins = not out or out[-1].stop < number
            out[len(out) if begins else -1 :] = [range(number if begins else out[-1].start, number + 1)]
    return out


def wide(model: nn.Module) -> torch.dtype:
    """Of hidden states between stages: float32, if nothing in the model is wider."""
    return torch.float64 if any(one.dtype is torch.float64 for one in model.parameters()) else torch.float32


class Way:
    """A micro-batch's way through a part of the stack: called as the model is; `hidden` is what came out."""

    def __init__(self, forward: Callable[..., tuple[Any, ...]], first: int = 0, *, ends: bool = True, **stage: object):
        self.forward, self.first, self.ends, self.stage = forward, first, ends, stage
        self.hidden: Tensor | None = None

    def __call__(self, tokens: Tensor, **options: Any) -> tuple[Any, ...]:
        """What the model returns."""
        out = self.forward(tokens, **options, **self.stage)
        self.hidden = out[0]
        return out


@dataclass
class Step:
    """The passes of one step: `forward` is the model; `take` gives, for the number of a micro-batch and its way through
    a part of the stack, what is differentiated beside the hidden states that come out; `shapes` are theirs."""

    stages: Stages
    model: nn.Module
    forward: Callable[..., tuple[Any, ...]]
    take: Callable[[int, Way], Tensor]
    shapes: Sequence[tuple[int, ...]]
    arrived: dict[Message, Tensor] = field(default_factory=dict)
    coming: dict[int, Iterator[Message]] = field(default_factory=dict)

    def run(self) -> None:
        """All of them, in order."""
        stages, parts, dtype = self.stages, chunks(self.model), wide(self.model)
        device = next(self.model.parameters()).device
        held: dict[tuple[int, int], tuple[Tensor | None, list[Tensor]]] = {}
        sent: list[tuple[Any, Tensor]] = []
        for one in schedule(stages.place, stages.size, len(self.shapes), stages.chunks):
            number = one.chunk * stages.size + stages.place
            given = self.fetch(Message(stages.place, one.forward, number, one.micro_batch), dtype, device)
            if one.forward:
                if given is not None:
                    given.requires_grad_()
                ends = number == stages.parts - 1
                way = Way(self.forward, parts[one.chunk].start, ends=ends, part=parts[one.chunk], hidden=given)
                cost = self.take(one.micro_batch, way)
                assert way.hidden is not None
                roots = [cost] if ends else [way.hidden.to(dtype), *([cost] if cost.requires_grad else [])]
                held[one.chunk, one.micro_batch] = given, roots
                passed: Tensor | None = roots[0]
            else:
                before, roots = held.pop((one.chunk, one.micro_batch))
                torch.autograd.backward(roots, [given, *[None] * (len(roots) - 1)])
                passed = None if before is None else before.grad
            message = handed(one, stages.place, stages.size, stages.chunks)
            if message is not None and passed is not None:
                out = passed.detach().contiguous()
                sent = [(work, x) for work, x in sent if not work.is_completed()]
                sent.append((stages.send(out, message.to), out))
        for work, _ in sent:
            work.wait()

    def fetch(self, wanted: Message, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """What a pass begins with. A stage's messages are taken in the order in which it sends them."""
        before = wanted.part + (-1 if wanted.forward else 1)
        if not 0 <= before < self.stages.parts:
            return None
        stages, source = self.stages, before % self.stages.size
        if source not in self.coming:
            every = messages(source, stages.place, stages.size, len(self.shapes), stages.chunks)
            self.coming[source] = every
        while wanted not in self.arrived:
            message = next(self.coming[source])
            empty = torch.empty(self.shapes[message.micro_batch], dtype=dtype, device=device)
            self.arrived[message] = stages.receive(empty, source)
        return self.arrived.pop(wanted)


def sum_copies(model: nn.Module, rows: Sequence[Weight], stages: Stages) -> None:
    """Adds up the gradients of weights that lie on the first stage and on the last."""
    if 0 < stages.place < stages.size - 1:
        return
    other = stages.size - 1 - stages.place
    looked_up = ["embed.weight"] if len(getattr(model, "ahead", ())) else []
    for name in dict.fromkeys([*(weight.tied for weight in rows if weight.tied is not None), *looked_up]):
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        own = local(gradient)
        theirs, mine = torch.empty_like(own), own.clone()
        sending = stages.send(mine, other) if stages.place == 0 else None  # one after the other: a link is made so
        stages.receive(theirs, other)
        (sending or stages.send(mine, other)).wait()
        own += theirs
