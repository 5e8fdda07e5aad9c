"""A plain module becomes this rank's part of it: matrices divided first, then every piece between steps (FSDP2)."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from pretrain.model.ahead import every_block
from pretrain.model.layers.experts import Experts
from pretrain.model.weights import Axis, Place, Weight, draws, expand, held, local
from pretrain.parallel.context import divide
from pretrain.parallel.expert import spread
from pretrain.parallel.layout import Layout
from pretrain.parallel.links import all_gather, reduce_scatter
from pretrain.parallel.pieces import Box, boxes, divided, numbers, paste, ranges
from pretrain.parallel.pieces import whole as everything
from pretrain.parallel.pipeline import BEFORE, Stages, Step, Way, join, split, sum_copies
from pretrain.parallel.tensor import share

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class Ranks:
    """This rank among all: what it reads and holds, and what it must add up with the others. One rank adds nothing."""

    layout: Layout = field(default_factory=Layout)
    meshes: "Sequence[DeviceMesh]" = ()
    groups: Mapping[str, ProcessGroup] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, device: str) -> "Ranks":
        """This process's, among those of the process group."""
        if layout.ranks == 1:
            return cls(layout)
        meshes = layout.meshes(device)
        groups = {name: mesh.get_group(name) for mesh in reversed(meshes) for name in mesh.mesh_dim_names or ()}
        if layout.pp > 1:  # once more, for what goes to earlier stages
            groups["back"] = dist.new_group() if layout.pp == layout.ranks else meshes[1].get_group("pp")
        return cls(layout, meshes, {**groups, "copy": meshes[1]["fold", "tp"]._flatten("copy").get_group()})

    @property
    def mesh(self) -> "DeviceMesh | None":
        """The ranks as a grid of pp · replicate · shard · cp · tp; one rank has none."""
        return self.meshes[0] if self.meshes else None

    def view(self, *names: str) -> "DeviceMesh":
        """The part of a grid that has all of these dimensions."""
        mesh = next(mesh for mesh in self.meshes if set(names) <= set(mesh.mesh_dim_names or ()))
        return mesh[names]

    def group(self, name: str) -> ProcessGroup:
        """Those that differ from this rank in one size of the layout only; "copy", those that hold a stage of one copy
        of the model together."""
        return self.groups[name]

    def place(self, name: str) -> int:
        """Which of the ranks of that group this is."""
        return self.groups[name].rank() if self.meshes else 0

    @property
    def alone(self) -> bool:
        """Whether there is no other rank."""
        return self.layout.ranks == 1

    @property
    def number(self) -> int:
        """Among all ranks."""
        return 0 if self.mesh is None else self.mesh.get_rank()

    @property
    def leads(self) -> bool:
        """Whether this is the rank that reports and decides."""
        return self.number == 0

    def agree(self, value: int) -> int:
        """What the leading rank says."""
        if self.mesh is None:
            return value
        said = torch.tensor(value, device=self.mesh.device_type)
        dist.broadcast(said, 0)
        return int(said)

    def most(self, value: int, among: str = "") -> int:
        """The largest that a rank says, of all or of a group."""
        if self.mesh is None:
            return value
        said = torch.tensor(value, device=self.mesh.device_type)
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self.groups[among] if among else None)
        return int(said)

    def any(self, value: bool) -> bool:
        """Whether any rank says so."""
        return bool(self.most(int(value)))

    def said(self, text: str, rank: int) -> str:
        """What that rank says, at most 1,000 bytes of it."""
        if self.mesh is None:
            return text
        letters = torch.frombuffer(bytearray(text.encode()[:1000].ljust(1000, b"\0")), dtype=torch.uint8)
        letters = letters.to(self.mesh.device_type)
        dist.broadcast(letters, rank)
        return bytes(letters.tolist()).rstrip(b"\0").decode(errors="ignore")

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.mesh is not None:
            dist.barrier()

    @property
    def stages(self) -> Stages:
        """This rank's stage, where there are several."""
        return Stages(self.place("pp"), self.layout.pp, self.layout.chunks, (self.group("pp"), self.group("back")))

    @property
    def data_rank(self) -> int:
        """Which of the layout's `data` shares of a batch is this rank's."""
        return self.place("replicate") * self.layout.shard + self.place("shard")

    def apply(
        self,
        model: nn.Module,
        rows: Sequence[Weight],
        axes: Mapping[str, Axis],
        gathered: torch.dtype = torch.float32,
    ) -> list[Weight]:
        """Leaves a rank its part of the model, and returns the rows of what that is of. A gradient is a sum over ranks,
        never a mean. Matrices in float32 are sent to ranks that need them as `gathered`. Raises UserError."""
        rows = expand(rows)
        if self.layout.cp > 1:
            divide(model, self.group("cp"))
        if self.layout.pp > 1:
            rows = split(model, rows, axes, self.stages)
        if self.layout.ep > 1:
            spread(model, rows, axes, self.group("ep"))
        if self.layout.tp > 1:
            share(model, rows, axes, self.group("tp"))
        if self.layout.replicate * self.layout.fold > 1:
            # Half a second that one rank does not need.
            from pretrain.parallel.data import in_pieces, send_narrow

            reshard = False if self.layout.pp > 1 else None  # passes of other micro-batches come before its backward
            stacks = [one.stacks for one in model.modules() if isinstance(one, Experts)] if self.layout.ep > 1 else []
            blocks = [block for _, block in every_block(model)]
            for name, modules in (("expert_shard", stacks), ("fold", [*blocks, model])):
                mesh = self.view("replicate", name) if self.layout.replicate > 1 else self.view(name)
                for module in modules:
                    in_pieces(module, mesh, reshard=reshard)
            if gathered is torch.bfloat16:
                send_narrow(model, rows)
        if self.layout.pp > 1:
            join(model, axes, self.stages)
        return rows

    def fold(self, model: nn.Module) -> None:
        """Leaves a rank its piece only: a pass without gradient leaves weights whole, the outermost or, of several
        stages, all, and their old gradients would be added to."""
        if self.layout.replicate * self.layout.fold > 1:
            from pretrain.parallel.data import whole_no_more

            whole_no_more(model)

    def passes(
        self,
        model: nn.Module,
        axes: Mapping[str, Axis],
        forward: Callable[..., tuple[Any, ...]],
        take: Callable[[int, Way], Tensor],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Forward and backward of micro-batches of tokens of these `shapes`: `take` gives what is differentiated."""
        if self.layout.pp > 1:
            width = axes["embed"][0] * axes["embed"][1]
            hidden = [(rows, sequence // self.layout.tp, width) for rows, sequence in shapes]
            return Step(self.stages, model, forward, take, hidden).run()
        for number in range(len(shapes)):
            take(number, Way(forward)).backward()

    def sum_over_data(self, x: Tensor) -> Tensor:
        """The sum of what ranks with rows, or parts of rows, of their own have counted, in place."""
        for name in ("fold", "replicate"):
            if getattr(self.layout, name) > 1:
                dist.all_reduce(x, group=self.group(name))
        return x

    def sum_over_stages(self, x: Tensor) -> Tensor:
        """The sum of what stages have counted, each in its part of the stack, in place."""
        if self.layout.pp > 1:
            dist.all_reduce(x, group=self.group("pp"))
        return x

    def sum_gradients(self, model: nn.Module, rows: Sequence[Weight]) -> None:
        """Adds up the parts of the gradients of whole weights, and of weights on two stages, once a step."""
        if self.layout.tp > 1:
            self._sum_parts(model, rows)
        if self.layout.pp > 1:
            sum_copies(model, rows, self.stages)

    def _sum_parts(self, model: nn.Module, rows: Sequence[Weight]) -> None:
        """In one message."""
        parts = [
            local(g) for weight in trained(rows) if divided(weight) is None and (g := _grad(model, weight)) is not None
        ]
        for dtype in {part.dtype for part in parts}:
            alike = [part for part in parts if part.dtype == dtype]
            flat = torch.cat([part.flatten() for part in alike])
            dist.all_reduce(flat, group=self.group("tp"))
            pieces = flat.split([part.numel() for part in alike])
            torch._foreach_copy_(alike, [piece.view_as(part) for piece, part in zip(pieces, alike, strict=True)])

    def norm(self, model: nn.Module, rows: Sequence[Weight]) -> Tensor:
        """Of all gradients, over all ranks: each piece counts once."""
        apart: dict[bool, list[Tensor]] = {True: [], False: []}
        for weight in trained(rows):
            if (gradient := _grad(model, weight)) is not None and not self._again(weight):
                apart[divided(weight) is not None].append(local(gradient))
        squares = torch.stack([_square(apart[True]), _square(apart[False])])
        if self.layout.fold > 1:
            dist.all_reduce(squares, group=self.group("fold"))
        if self.layout.tp > 1:
            dist.all_reduce(squares[0], group=self.group("tp"))
        return self.sum_over_stages(squares.sum()).sqrt()

    def clip(self, model: nn.Module, rows: Sequence[Weight], most: float) -> Tensor:
        """The norm of all gradients; they are scaled to `most` if it is larger (Pascanu et al. 2013). 0 leaves them."""
        norm = self.norm(model, rows)
        if most:
            gradients = [local(g) for weight in trained(rows) if (g := _grad(model, weight)) is not None]
            torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def wholly(self, rows: Sequence[Weight], axes: Mapping[str, Axis]) -> "Wholes":
        """What puts matrices together that ranks hold in parts."""
        return Wholes(self, {weight.name: weight for weight in trained(rows)}, axes)

    def first_of(self, weight: Weight, *, copies: bool = True) -> bool:
        """Whether this is the first of the ranks that hold the same part of a weight; of one copy's, or of all."""
        apart = {"tp": divided(weight) is not None, "fold": not weight.buffer, "replicate": not copies}
        return all(apart[name] or self.place(name) == 0 for name in apart) and not self._again(weight)

    def _again(self, weight: Weight) -> bool:
        """Whether an earlier stage has that weight too."""
        return self.place("pp") > 0 and weight.name.partition(".")[0] in BEFORE

    def places(self, rows: Sequence[Weight], axes: Mapping[str, Axis]) -> Callable[[str, Tensor], Tensor]:
        """A function of a weight's name and this rank's part of it: the numbers of its elements in the whole weight."""
        weights = {weight.name: weight for weight in trained(rows)}
        return lambda name, own: numbers(weights[name].shape(axes), self.boxes(weights[name], axes), own)

    def draw(self, model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], std: float, seed: int) -> None:
        """Draws what this rank holds, the same numbers as `initialise` on one rank."""
        for weight in (weight for weight in rows if weight.tied is None):
            for place, make in draws(weight, weight.shape(axes), std, seed):
                self.paste(model, weight, axes, place, make)

    def paste(
        self,
        model: nn.Module,
        weight: Weight,
        axes: Mapping[str, Axis],
        place: Place,
        make: Callable[[], Tensor],
    ) -> None:
        """Fills what this rank holds of a part of a whole weight; the part is made only where it holds any."""
        with torch.no_grad():
            paste(local(held(model, weight.name)), self.boxes(weight, axes), weight.shape(axes), place, make)

    def boxes(self, weight: Weight, axes: Mapping[str, Axis]) -> list[Box]:
        """Which blocks of the whole weight this rank holds."""
        shape, dim = weight.shape(axes), divided(weight)
        if self.mesh is None:
            return [everything(shape)]
        parts = [] if dim is None else ranges(weight, axes, dim, self.place("tp"), self.layout.tp)
        first, last = 0, shape[0] if dim != 0 else sum(high - low for low, high in parts)
        if not weight.buffer:
            for name in ("ep", "expert_shard") if weight.stacked else ("fold",):
                each, place = -(-(last - first) // getattr(self.layout, name)), self.place(name)
                first, last = min(first + place * each, last), min(first + (place + 1) * each, last)
        return boxes(shape, dim, parts, first, last)


@dataclass(frozen=True)
class Wholes:
    """A function of whole matrices, each computed once, on one of the ranks that hold its parts."""

    ranks: Ranks
    weights: Mapping[str, Weight]
    axes: Mapping[str, Axis]

    def __call__(self, parts: Mapping[str, Tensor], function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """This rank's parts of function(stack of whole matrices of one shape), by name."""
        alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in parts:
            alike[self.weights[name].shape(self.axes)].append(name)
        group, out = self.ranks.group("copy"), dict[str, Tensor]()
        for shape, names in alike.items():
            for first in range(0, len(names), group.size()):  # a matrix for each rank: memory does not grow with depth
                out |= self._some(shape, {name: parts[name] for name in names[first : first + group.size()]}, function)
        return out

    def _some(
        self, shape: tuple[int, ...], parts: Mapping[str, Tensor], function: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        group, (first, *_) = self.ranks.group("copy"), parts.values()
        every = first.new_zeros(group.size(), *shape)
        for whole, (name, part) in zip(every, parts.items(), strict=False):
            if self.ranks.first_of(self.weights[name], copies=False):
                for box in self.ranks.boxes(self.weights[name], self.axes):
                    box.of_whole(whole).copy_(box.of_own(part))
        own = first.new_empty(1, *shape)
        reduce_scatter(own, every, group=group)
        all_gather(every, function(own).contiguous(), group=group)
        out = {}
        for whole, (name, part) in zip(every, parts.items(), strict=False):
            out[name] = torch.empty_like(part)
            for box in self.ranks.boxes(self.weights[name], self.axes):
                box.of_own(out[name]).copy_(box.of_whole(whole))
        return out


def trained(rows: Sequence[Weight]) -> list[Weight]:
    """The weights that have a gradient, each once."""
    return [weight for weight in expand(rows) if weight.tied is None and not weight.buffer]


def _grad(model: nn.Module, weight: Weight) -> Tensor | None:
    return model.get_parameter(weight.name).grad


def _square(gradients: list[Tensor]) -> Tensor:
    if not gradients:
        return torch.zeros(())
    return norms(gradients).square().sum()


def norms(gradients: list[Tensor]) -> Tensor:
    """Of each of them; of bfloat16 in float32."""
    narrow = any(gradient.dtype is torch.bfloat16 for gradient in gradients)
    return torch.stack(torch._foreach_norm(gradients, 2, torch.float32 if narrow else None))
