"""Which of a model's weights a policy makes narrower, by the rows of its table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from pretrain.base.errors import UserError
from pretrain.model.weights import Axis, Weight, expand, segments
from pretrain.precision.linear import narrow
from pretrain.precision.policy import Policy


def narrowed(model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], policy: Policy) -> list[str]:
    """Prepares a whole model for a policy, before anything is divided; gives matrices whose products stay wide."""
    if policy.pure:
        for name, narrower in _bfloat16(rows, policy.higher).items():
            if narrower:
                parameter = model.get_parameter(name)
                parameter.data = parameter.data.bfloat16()
    if policy.scaling is None:
        return []
    return narrow(model, {weight.name: _sizes(weight, axes, {}) for weight in _matrices(rows)}, policy.scaling)


def refuse(rows: Sequence[Weight], axes: Mapping[str, Axis], policy: Policy, shared: Sequence[str], tp: int) -> None:
    """Raises UserError where ranks that divide the `shared` axes would decide whether a product is narrow."""
    if policy.scaling is None:
        return
    grain = policy.scaling.grain

    def parted(size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for weight in _matrices(rows):
            parts = _sizes(weight, axes, dict.fromkeys(shared, size))
            if any(part % grain for part in parts) and all(whole % grain == 0 for whole in _sizes(weight, axes, {})):
                yield weight.name, parts

    for name, parts in parted(tp):
        what = f"parallel.tp: {policy.name} needs multiples of {grain}, and a rank's part of {name} would be"
        fit = next(size for size in range(tp - 1, 0, -1) if tp % size == 0 and not any(parted(size)))
        raise UserError(f"{what} {' x '.join(map(str, parts))}", expected=f"parallel.tp = {fit}")


def _matrices(rows: Sequence[Weight]) -> list[Weight]:
    return [weight for weight in expand(rows) if weight.group == "matrix" and weight.tied is None and not weight.buffer]


def _sizes(weight: Weight, axes: Mapping[str, Axis], shares: Mapping[str, int]) -> tuple[int, ...]:
    """Of a rank's matrix, along each axis the sizes of its segments."""
    names = weight.axes.split()[weight.stacked :]
    return tuple(size // shares.get(name.split("+")[0], 1) for name in names for size in segments(name, axes))


def _bfloat16(rows: Sequence[Weight], higher: Sequence[str]) -> dict[str, bool]:
    """Whether each weight becomes bfloat16: matrices do, other parts that are not `higher`, and vectors that a module
    holds beside them. Norms, alone in their modules, are as the stream that they meet: as the embedding."""
    parts: dict[str, set[str]] = defaultdict(set)
    for weight in expand(rows):
        if not weight.buffer and weight.group != "vector":
            parts[weight.tied or weight.name].add(_part(weight))
    out = {name: not found & set(higher) for name, found in parts.items()}
    stream = all(narrower for name, narrower in out.items() if "embedding" in parts[name])
    held = {name.rpartition(".")[0]: narrower for name, narrower in out.items()}  # by module
    for weight in expand(rows):
        if weight.group == "vector" and not weight.buffer:
            owner = weight.name.rpartition(".")[0]
            out[weight.name] = held.get(owner, stream or any(other.startswith(f"{owner}.") for other in held))
    return out


def _part(weight: Weight) -> str:
    if weight.group == "matrix":
        return "matrices"
    if "choice" in weight.axes.split():
        return "router"
    return "output" if weight.name.startswith("head.") else "embedding"
