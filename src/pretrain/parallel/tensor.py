"""Tensor parallelism with sequence parallelism, from the rows of a weight table.

Between matrices every rank holds its part of the sequence. A module with matrices that are divided along their first
axis (q, k, v; gate, up) sees the whole sequence; one divided along its last axis (out, down) sums what the ranks have
made and keeps its part. So all that a rank computes from a whole weight is a part of that weight's gradient, and no
rank's part is another's: `apply.py` sums them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.functional import embedding, linear

from pretrain.base.errors import UserError
from pretrain.model.ahead import Ahead, Later, every_block
from pretrain.model.decoder import Head
from pretrain.model.layers.experts import Experts
from pretrain.model.layers.norm import RMSNorm
from pretrain.model.weights import Axis, Weight, expand, held, tie
from pretrain.parallel.links import gather, joined, mean, once, scatter_sum
from pretrain.parallel.pieces import Ranges, divided, ranges
from pretrain.precision.linear import ScaledLinear, scaled_linear


class Row(nn.Module):
    """A linear layer whose inputs are divided: products are summed over ranks, each keeps its part of the sequence."""

    def __init__(self, whole: nn.Linear, group: ProcessGroup) -> None:
        super().__init__()
        self.weight, self.bias, self.group = whole.weight, whole.bias, group
        self.scaling = whole.scaling if isinstance(whole, ScaledLinear) else None

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq / tp, out] of [batch, seq, in / tp]."""
        scaled = self.scaling
        part = linear(x, self.weight) if scaled is None else scaled_linear(x, self.weight, scaled)
        out = scatter_sum(part, self.group)
        return out if self.bias is None else out + self.bias


class Lookup(nn.Module):
    """An embedding whose rows are divided: each rank knows its own, each keeps its part of the sequence."""

    def __init__(self, whole: nn.Embedding, group: ProcessGroup) -> None:
        super().__init__()
        self.weight, self.group = whole.weight, group

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, seq / tp, embed] of [batch, seq]."""
        rows = tokens - self.weight.shape[0] * self.group.rank()
        own = (rows >= 0) & (rows < self.weight.shape[0])
        found = embedding(torch.where(own, rows, 0), self.weight)
        return scatter_sum(found * own[..., None], self.group)


class Vocabulary:
    """The seam of cross-entropy: which part of the vocabulary a rank's logits are of, and how ranks add up."""

    def __init__(self, group: ProcessGroup) -> None:
        self.rank, self.group = group.rank(), group

    def sum(self, x: Tensor) -> Tensor:
        """Over ranks, in place."""
        dist.all_reduce(x, group=self.group)
        return x

    def most(self, x: Tensor) -> Tensor:
        """The largest over ranks, in place."""
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x


def share(model: nn.Module, rows: Sequence[Weight], axes: Mapping[str, Axis], group: ProcessGroup) -> None:
    """Leaves a rank its part of every divided weight, and puts the links between. Raises UserError for a stack of
    experts of which all would compute the same."""
    regions: dict[str, nn.Module] = {}
    blocks = [one.block if isinstance(one, Ahead) else one for _, one in every_block(model)]
    for weight in expand(rows):
        dim = divided(weight)
        if weight.tied is not None:
            continue
        name, _, _ = weight.name.rpartition(".")
        parent, _, last = name.rpartition(".")
        module, owner = model.get_submodule(name), model.get_submodule(parent)
        if dim is None:
            _whole(module, weight, group)
            continue
        keep(model, weight, ranges(weight, axes, dim, group.rank(), group.size()), dim)
        if weight.group == "matrix":
            _scale_together(module, weight, dim, group)
        if isinstance(module, nn.Embedding):
            setattr(owner, last, Lookup(module, group))
        elif isinstance(module, RMSNorm):
            module.reduce = lambda x: mean(x, group)
        elif isinstance(module, nn.Linear) and not isinstance(module, Head):
            alone = any(block is owner for block in blocks)
            if dim == 0 and alone:  # beside what sees a part
                regions[name] = module
            elif dim == 0:
                regions[parent] = owner
            else:
                setattr(owner, last, Row(module, group))
    for name, module in model.named_modules():
        if isinstance(module, Experts):
            regions[name] = module
            module.reduce = lambda y: scatter_sum(y, group)
        elif isinstance(module, Ahead):
            module.later = partial(_later, module.later, group)
    for name, region in regions.items():
        if not any(name.startswith(f"{other}.") for other in regions):  # what is inside another sees all already
            region.register_forward_pre_hook(_gather_first(group))
    _ends(model, rows, group)


def _whole(module: nn.Module, weight: Weight, group: ProcessGroup) -> None:
    """Of what is looked up in a whole table each rank keeps its part of the sequence; what all ranks have of a stack,
    whose parts they add up, the first alone shows."""
    if isinstance(module, nn.Embedding):
        module.register_forward_hook(lambda module, given, out: _part(out, group))
    elif weight.stacked:
        if not hasattr(module, "once"):
            what = f"{weight.name} has no axis of the experts' insides, so every rank would compute all of it"
            raise UserError(f"parallel.tp: {what}", expected="parallel.tp = 1 for this family")
        module.once = partial(once, group=group)  # type: ignore[assignment]


def keep(model: nn.Module, weight: Weight, parts: Ranges, dim: int) -> None:
    """Leaves a module these parts of a weight along `dim`."""
    whole = held(model, weight.name)
    own = torch.cat([whole.detach().narrow(dim, low, high - low) for low, high in parts], dim)
    owner, _, last = weight.name.rpartition(".")
    setattr(model.get_submodule(owner), last, nn.Parameter(own, requires_grad=whole.requires_grad))


def _scale_together(module: nn.Module, weight: Weight, dim: int, group: ProcessGroup) -> None:
    """Scales of narrow numbers are those of the whole matrix and of all that it is multiplied with."""
    axis, most = "in" if dim == len(weight.axes.split()) - 1 else "out", Vocabulary(group).most
    if isinstance(module, ScaledLinear):
        module.scaling = module.scaling.divided(axis, most)
    last = weight.name.rpartition(".")[2]
    scaled = getattr(module, "scaled", {})
    if last in scaled:
        scaled[last] = scaled[last].divided(axis, most)


def _gather_first(group: ProcessGroup) -> Any:
    def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return gather(given[0], group), *given[1:]

    return hook


def _later(later: Later, group: ProcessGroup, embedded: Tensor, k: int) -> Tensor:
    """This rank's part of what `later` makes of all ranks' parts."""
    return _part(later(gather(embedded, group), k), group)


def _part(x: Tensor, group: ProcessGroup) -> Tensor:
    """This rank's of [batch, seq, …], where ranks hold parts."""
    return x.chunk(group.size(), 1)[group.rank()] if torch.is_grad_enabled() else x


def _ends(model: nn.Module, rows: Sequence[Weight], group: ProcessGroup) -> None:
    """The last hidden states are whole, the head's logits are not."""

    def whole(module: nn.Module, given: object, options: dict[str, Any], out: Any) -> Any:
        if options.get("part") is not None and options["part"].stop < len(model.blocks):  # type: ignore[arg-type]
            return out  # the next stage's ranks have a part of the sequence each
        ahead = tuple(gather(state, group) for state in getattr(out, "ahead", ()))
        return out._replace(hidden=gather(out.hidden, group), ahead=ahead)

    def logits(module: nn.Module, given: object, out: Tensor) -> Tensor:
        return joined(out, group)

    model.register_forward_hook(whole, with_kwargs=True)
    if isinstance(model.head, Head):  # another stage has none
        model.head.shared = Vocabulary(group)
        model.head.register_forward_hook(logits)
    tie(model, rows)
