"""A model by its parts: shape, parameters, bytes and arithmetic of every row of its weight table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

from pretrain.model.count import active_parameters, training_flops_per_token
from pretrain.model.weights import Axis, Weight

SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
PASSES = 3  # a training step is a forward pass and a backward one of twice its arithmetic


@dataclass(frozen=True)
class Part:
    """A row of the table over all its layers; FLOP are of a token's forward pass. A tied one holds nothing itself."""

    part: str  # embed, attention, mlp …
    name: str
    layers: int
    shape: tuple[int, ...]  # in one layer
    parameters: int
    active: int  # of these a token meets
    bytes: int
    flops: int
    tied: str | None


@dataclass(frozen=True)
class Anatomy:
    """All parts of a model; `attention_flops` of a token are those of scores and sums over `sequence` tokens."""

    architecture: str
    parts: tuple[Part, ...]
    dtype: str
    sequence: int
    layers: int
    attention_flops: int

    @property
    def parameters(self) -> int:
        """Numbers that are learned."""
        return sum(one.parameters for one in self.parts)

    @property
    def active(self) -> int:
        """Of these, what a token meets."""
        return sum(one.active for one in self.parts)

    @property
    def bytes(self) -> int:
        """Of the file's weights."""
        return sum(one.bytes for one in self.parts)

    @property
    def flops(self) -> int:
        """FLOP of a token's forward pass."""
        return sum(one.flops for one in self.parts) + self.attention_flops

    def by_part(self) -> dict[str, tuple[int, int, int]]:
        """(parameters, active ones, FLOP) of each part; the scores of attention are a part of their own."""
        out: dict[str, tuple[int, int, int]] = {}
        for one in self.parts:
            size, active, flops = out.get(one.part, (0, 0, 0))
            out[one.part] = (size + one.parameters, active + one.active, flops + one.flops)
        return {**out, "scores": (0, 0, self.attention_flops)}


def anatomy(family: ModuleType, config: Any, sequence: int, dtype: str) -> Anatomy:
    """Parts in the order of the table."""
    rows, axes, layers = family.weights(config), config.axes(), config.num_hidden_layers
    scores = round(training_flops_per_token([], axes, layers, sequence) / PASSES)
    parts = tuple(_part(row, axes, dtype) for row in rows)
    return Anatomy(family.ARCHITECTURE, parts, dtype, sequence, layers, scores)


def _part(row: Weight, axes: Mapping[str, Axis], dtype: str) -> Part:
    layers = 1 if row.layers is None else len(row.layers)
    held = 0 if row.tied else prod(row.shape(axes)) * layers
    name = row.name.removeprefix("blocks.{i}.")
    one: Sequence[Weight] = [row]
    return Part(
        part=name.partition(".")[0],
        name=name.removesuffix(".weight"),
        layers=layers,
        shape=row.shape(axes),
        parameters=0 if row.buffer else held,
        active=active_parameters(one, axes),
        bytes=held * (4 if row.buffer else SIZES[dtype]),
        flops=round(training_flops_per_token(one, axes, 0, 0) / PASSES),
        tied=row.tied,
    )
