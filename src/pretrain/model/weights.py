"""The weight table: from its rows follow shapes, checks, loading, export and initialisation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pretrain.base.errors import UserError, nearest
from pretrain.base.random import key

Axis = tuple[int, int]  # a count and a grain: kv = (8 heads, 128 wide)


@dataclass(frozen=True)
class Weight:
    """A row: our name and the file's name ("{i}" is the layer), logical axes, what it is tied to, and the standard
    deviation that it is drawn with, where that is not the family's one for all."""

    name: str
    file: str
    axes: str
    layers: range | None = None
    tied: str | None = None
    std: float | None = None

    def each(self) -> Iterator["Weight"]:
        """The row for every layer that has it."""
        if self.layers is None:
            yield self
            return
        for i in self.layers:
            name, file = (text.replace("{i}", str(i)) for text in (self.name, self.file))
            yield replace(self, name=name, file=file, layers=None)

    def shape(self, axes: Mapping[str, Axis]) -> tuple[int, ...]:
        """Its size along each axis."""
        return tuple(axes[name][0] * axes[name][1] for name in self.axes.split())


def expand(rows: Sequence[Weight]) -> list[Weight]:
    """Every weight of every layer."""
    return [weight for row in rows for weight in row.each()]


def check(module: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis]) -> None:
    """Demands table = module, name for name and size for size. Raises ValueError: the family's file is wrong."""
    table = {weight.name: weight.shape(axes) for weight in expand(rows)}
    made = {name: tuple(p.shape) for name, p in module.named_parameters(remove_duplicate=False)}
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
    """Matrices from N(0, std), vectors (norms) one: each from a generator of its own, keyed by seed and name.

    So a weight does not depend on the order of drawing, on its neighbours or on the layout.
    """
    with torch.no_grad():
        for weight in expand(rows):
            parameter = module.get_parameter(weight.name)
            if weight.tied is None and parameter.dim() == 1:
                parameter.fill_(1.0)
            elif weight.tied is None:
                generator = torch.Generator().manual_seed(key(seed, "initialise", weight.name) & (2**63 - 1))
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * (std if weight.std is None else weight.std)
                )


def load(module: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], tensors: Mapping[str, Tensor]) -> None:
    """Fills a module from tensors under the file's names. Raises UserError where one is missing, odd or unclaimed."""
    wanted = {weight.file: weight for weight in expand(rows) if weight.tied is None}
    tied = {weight.file for weight in expand(rows) if weight.tied is not None}
    for name in tensors:
        if name not in wanted and name not in tied:
            raise UserError(f"tensor {name} belongs to no weight of the family", near=nearest(name, wanted))
    with torch.no_grad():
        for file, weight in wanted.items():
            if file not in tensors:
                raise UserError(f"tensor {file} is missing", near=nearest(file, tensors))
            if tuple(tensors[file].shape) != weight.shape(axes):
                what = f"tensor {file} is {list(tensors[file].shape)}"
                raise UserError(what, expected=str(list(weight.shape(axes))))
            module.get_parameter(weight.name).copy_(tensors[file])


def export(module: nn.Module, rows: Sequence[Weight]) -> Iterator[tuple[str, Tensor]]:
    """(file's name, tensor) of every weight that a file holds."""
    for weight in expand(rows):
        if weight.tied is None:
            yield weight.file, module.get_parameter(weight.name).detach()


def parameters(rows: Sequence[Weight], axes: Mapping[str, Axis]) -> int:
    """How many numbers the model learns; tied ones count once."""
    return sum(_product(weight.shape(axes)) for weight in expand(rows) if weight.tied is None)


def _product(shape: Sequence[int]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out
