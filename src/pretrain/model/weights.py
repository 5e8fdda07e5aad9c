"""The weight table: from its rows follow shapes, checks, ties, initialisation, loading and export."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pretrain.base.errors import UserError, nearest
from pretrain.base.random import key

Place = tuple[int | slice, ...]  # of a part of a whole tensor, along its first dimensions
Axis = tuple[int, int]  # a count and a grain: kv = (8 heads, 128 wide)
Group = Literal["matrix", "embedding", "vector"]
Draw = Literal["normal", "fan_in", "zeros", "ones"]
LOOKED_UP = {"vocab", "gram_vocab", "position", "kind"}  # axes whose rows are fetched by number
KEPT = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # dtypes that a file's weights may have
LOOKED_AT = 2**17  # numbers at a time, to find those that are not finite


class Scale(NamedTuple):
    """What an optimizer's settings are multiplied by, weight decay by 1 / lr: model/transfer.py says it."""

    lr: float = 1.0  # of an update as large as its signs, Adam's
    orthogonal_lr: float = 1.0  # of an orthogonal update, Muon's
    eps: float = 1.0


UNSCALED = Scale()


@dataclass(frozen=True)
class Weight:
    """A row: our name, the file's name ("{i}" is the layer, "{e}" the expert), logical axes, and what is odd about it.

    Several files are joined along our first axis, by the segments of a sum of axes ("q+kv+kv embed"); `also` are names
    of older files, read and never written. `draw` and `std` say how it starts: N(0, std), where the family has no other
    std for all; "fan_in" divides std (1 if not said) by √inputs; `cut` bounds it to so many std. If nothing is said,
    norms start at one ("ones" are `std`, if said) and what is called bias at zero. A first axis "expert" is a stack; a
    router's rows are "choice".
    """

    name: str
    file: str | tuple[str, ...]
    axes: str
    layers: range | Sequence[int] | None = None
    tied: str | None = None  # our name of the weight that it is
    buffer: bool = False  # state without gradient, float32 always
    shared_by: str | None = None  # the sharded axis on which a replicated weight is used
    transpose: bool = False  # the file holds [in, out]
    also: tuple[str, ...] = ()
    draw: Draw | None = None
    std: float | None = None
    cut: float | None = None
    scale: Scale = UNSCALED

    def each(self) -> Iterator["Weight"]:
        """The row for every layer that has it."""
        if self.layers is None:
            yield self
            return
        for i in self.layers:
            layer = str(i)
            file = tuple(text.replace("{i}", layer) for text in self.files)
            also = tuple(text.replace("{i}", layer) for text in self.also)
            yield replace(self, name=self.name.replace("{i}", layer), file=file, also=also, layers=None)

    @property
    def files(self) -> tuple[str, ...]:
        """The file's names."""
        return (self.file,) if isinstance(self.file, str) else self.file

    @property
    def stacked(self) -> bool:
        """Whether its first axis counts experts, each a weight of its own."""
        return self.axes.split()[0] == "expert"

    @property
    def group(self) -> Group:
        """What an optimizer sees in it (in each expert's): its axes say so. Head and router are embeddings."""
        names = self.axes.split()[self.stacked :]
        if len(names) == 1:
            return "vector"
        return "embedding" if (LOOKED_UP | {"choice"}) & set(names) else "matrix"

    @property
    def drawn(self) -> Draw:
        """How it starts, said or not."""
        vector: Draw = "zeros" if self.name.endswith("bias") else "ones"
        return self.draw or (vector if self.group == "vector" else "normal")

    def shape(self, axes: Mapping[str, Axis]) -> tuple[int, ...]:
        """Its size along each axis."""
        return tuple(sum(segments(name, axes)) for name in self.axes.split())

    def pieces(self, axes: Mapping[str, Axis]) -> Iterator[tuple[str, Place]]:
        """(a name in the file, the place of that tensor in ours)."""
        apart = "{e}" in self.files[0]
        joined = self.axes.split()[apart]
        sizes = segments(joined, axes) if len(self.files) > 1 else [sum(segments(joined, axes))]
        for e in range(axes["expert"][0]) if apart else [None]:
            start = 0
            for file, size in zip(self.files, sizes, strict=True):
                rows = slice(start, start + size)
                yield file.replace("{e}", str(e)), (rows,) if e is None else (e, rows)
                start += size


def segments(name: str, axes: Mapping[str, Axis]) -> list[int]:
    """Sizes of the parts of an axis: one, or those of a sum, "q+kv+kv"."""
    return [axes[part][0] * axes[part][1] for part in name.split("+")]


def expand(rows: Sequence[Weight]) -> list[Weight]:
    """Every weight of every layer."""
    return [weight for row in rows for weight in row.each()]


def within(rows: Sequence[Weight], prefix: str, file_prefix: str) -> list[Weight]:
    """The table of a part of a larger model: both names prefixed."""
    return [
        replace(
            row,
            name=prefix + row.name,
            file=tuple(file_prefix + file for file in row.files),
            also=tuple(file_prefix + file for file in row.also),
            tied=None if row.tied is None else prefix + row.tied,
        )
        for row in rows
    ]


def held(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name, as it is held."""
    owner, _, last = name.rpartition(".")
    found = getattr(module.get_submodule(owner), last)
    assert isinstance(found, Tensor), name
    return found


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that several hold."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def check(module: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis]) -> None:
    """Demands table = module: names, kinds and sizes. Raises ValueError: the family's file is wrong."""
    table = {weight.name: (weight.buffer, weight.shape(axes)) for weight in expand(rows)}
    state = module.state_dict(keep_vars=True)
    made = {name: (not isinstance(tensor, nn.Parameter), tuple(tensor.shape)) for name, tensor in state.items()}
    if table != made:
        wrong = sorted(name for name in table.keys() | made.keys() if table.get(name) != made.get(name))
        raise ValueError(f"table and module differ in {', '.join(wrong[:5])}")


def tie(module: nn.Module, rows: Sequence[Weight]) -> None:
    """Makes tied weights one Parameter; again after whatever replaces Parameters."""
    for weight in expand(rows):
        if weight.tied is not None:
            owner, _, last = weight.name.rpartition(".")
            setattr(module.get_submodule(owner), last, module.get_parameter(weight.tied))


def initialise(module: nn.Module, rows: Sequence[Weight], std: float, seed: int) -> None:
    """Draws every weight of a whole module."""
    with torch.no_grad():
        for weight in expand(rows):
            if weight.tied is None:
                tensor = held(module, weight.name)
                for part, draw in draws(weight, tuple(tensor.shape), std, seed):
                    tensor[part].copy_(draw())


def draws(
    weight: Weight, shape: tuple[int, ...], std: float, seed: int
) -> Iterator[tuple[Place, Callable[[], Tensor]]]:
    """(the place of a part of a whole weight of `shape`, what draws it), as its row says: each from a generator of its
    own, keyed by seed and name, experts each.

    So a weight does not depend on the order of drawing, on its neighbours or on the layout.
    """
    tag = (seed, "initialise", weight.name)
    if not weight.stacked:
        yield (), partial(_drawn, weight, shape, std, key(*tag))
        return
    for e in range(shape[0]):
        yield (e,), partial(_drawn, weight, shape[1:], std, key(*tag, e))


def _drawn(weight: Weight, shape: tuple[int, ...], std: float, word: int) -> Tensor:
    draw, said = weight.drawn, weight.std
    if draw in ("zeros", "ones"):
        return torch.full(shape, 0.0 if draw == "zeros" else 1.0 if said is None else said)
    spread = std if said is None else said
    if draw == "fan_in":
        spread = (1.0 if said is None else said) * shape[-1] ** -0.5
    return _normal(shape, weight.cut, word) * spread


def _normal(shape: tuple[int, ...], cut: float | None, word: int) -> Tensor:
    generator = torch.Generator().manual_seed(word & (2**63 - 1))
    if cut is None:
        return torch.randn(shape, generator=generator)
    return nn.init.trunc_normal_(torch.empty(shape), a=-cut, b=cut, generator=generator)


def load(
    module: nn.Module,
    rows: Sequence[Weight],
    axes: Mapping[str, Axis],
    tensors: Mapping[str, Tensor],
    where: Callable[[str], str] = lambda name: "",
) -> None:
    """Fills a module from tensors under the file's names, one at a time. Raises UserError as `matched` does."""
    with torch.no_grad():
        for _, weight, place, value in matched(module, rows, axes, tensors, where):
            held(module, weight.name)[place].copy_(value.mT if weight.transpose else value)


def matched(
    module: nn.Module,
    rows: Sequence[Weight],
    axes: Mapping[str, Axis],
    tensors: Mapping[str, Tensor],
    where: Callable[[str], str],
) -> Iterator[tuple[str, Weight, Place, Tensor]]:
    """(the file's name, its row, its place in our weight, the tensor), one at a time; `where` says in which file a
    tensor lies. The module need not have memory.

    Raises UserError where one is missing, of another shape, not finite, unclaimed, or not what it is tied to.
    """
    places = {name: (weight, place) for weight in expand(rows) for name, place in weight.pieces(axes)}
    older = {name for weight in expand(rows) for name in weight.also}
    for name in tensors:
        if name not in places and name not in older:
            what = f"tensor {name} belongs to no weight of the family"
            raise UserError(what, where=where(name), near=nearest(name, places))
    named: dict[str, str] = {}  # of our weights, the name in the file
    for name, (weight, place) in places.items():
        found = next((one for one in (name, *weight.also) if one in tensors), None)
        if found is None and weight.tied is None:
            raise UserError(f"tensor {name} is missing", where=where(name), near=nearest(name, tensors))
        if found is None:
            continue
        ours, value = held(module, weight.name)[place], tensors[found]
        _demand(ours, weight, found, value, where(found))
        named[weight.name] = found
        if weight.tied is None:
            yield name, weight, place, value
        elif not torch.equal(value, tensors[named[weight.tied]].to(value.dtype)):
            what = f"tensor {found} differs from {named[weight.tied]}, to which config.json ties it"
            raise UserError(what, where=where(found), expected="one and the same")


def _demand(ours: Tensor, weight: Weight, name: str, theirs: Tensor, where: str) -> None:
    """Numbers that fit, all of them finite."""
    wanted = ours.mT.shape if weight.transpose else ours.shape
    if theirs.shape != wanted:
        raise UserError(f"tensor {name} is {list(theirs.shape)}", where=where, expected=str(list(wanted)))
    if theirs.dtype not in KEPT:
        what = f"tensor {name} is kept as {str(theirs.dtype).removeprefix('torch.')}, as quantised weights are"
        raise UserError(what, where=where, expected="float32, bfloat16 or float16")
    if not all(bool(torch.isfinite(part).all()) for part in theirs.flatten().split(LOOKED_AT)):
        raise UserError(f"tensor {name} holds NaN or infinity", where=where, expected="finite numbers")


def cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor in a dtype, its own if None. Raises UserError where a number is too large for float16."""
    made = tensor.to(tensor.dtype if dtype is None else dtype)
    if made.dtype is torch.float16 is not tensor.dtype and not made.is_meta and not torch.isfinite(made).all():
        what = f"tensor {name} has numbers up to {float(tensor.abs().max()):.3g}"
        raise UserError(what, expected="at most 65504 in float16; bfloat16 holds them")
    return made.contiguous()


def export(
    module: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """(file's name, tensor) of all that a file holds, one at a time; buffers stay float32."""
    return exported(lambda name: held(module, name).detach(), rows, axes, dtype)


def exported(
    ours: Callable[[str], Tensor], rows: Sequence[Weight], axes: Mapping[str, Axis], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """As `export`, of tensors by our names, each asked for once."""
    for weight in expand(rows):
        if weight.tied is None:
            tensor = ours(weight.name)
            for name, place in weight.pieces(axes):
                value = tensor[place].mT if weight.transpose else tensor[place]
                yield name, cast(name, value, None if weight.buffer else dtype)


def parameters(rows: Sequence[Weight], axes: Mapping[str, Axis]) -> int:
    """How many numbers the model learns; tied ones count once, buffers not at all."""
    return sum(prod(w.shape(axes)) for w in expand(rows) if w.tied is None and not w.buffer)
