"""Settings found on a small model, carried over to a large one: muP in width (Yang et al. 2022, arXiv 2203.03466, table
8), complete-P in depth (Dey et al. 2025, arXiv 2505.01618, table 1, α = 1).

Every multiplier is folded into the weights: m · (W x) is (m W) x, and Adam moves m W as it would have moved W where its
learning rate is multiplied by m, its weight decay and its ε divided by it. So the modules, their files and whoever
reads them know nothing of it. The last hidden states' 1 / width goes into the head, or, where the head is the
embedding, into the norm before it; a block's 1 / depth into the matrices that end its branches; and what makes scores
fall with the width of a head, not with its root, into the queries or their norm.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pretrain.base.errors import UserError
from pretrain.model.decoder import Decoder
from pretrain.model.folder import make
from pretrain.model.weights import Axis, Scale, Weight, expand, held, segments

LARGE = 1e5  # embeddings beside which what one branch adds is nothing to the next


def transferred(family: ModuleType, config: Any, base: Any) -> list[Weight]:
    """The table of `config` where the settings were found with `base`: how each weight starts, and how fast it learns.

    Raises UserError where a factor cannot be folded into the family's weights.
    """
    rows, axes, small = family.weights(config), config.axes(), base.axes()
    _check_folds(family, base)
    width, depth = axes["embed"][0] / small["embed"][0], config.num_hidden_layers / base.num_hidden_layers
    tied = any(row.name == "head.weight" and row.tied for row in rows)
    before = {row.name: row for row in family.weights(base)}
    fused = any("+" in row.axes.split()[0] for row in rows)
    if axes["q"][1] != small["q"][1] and fused:
        what = f"train.tuned_on: its heads are {small['q'][1]} wide, the model's {axes['q'][1]}, and made by one matrix"
        raise UserError(what, expected="heads of one width, and more of them in a wider model")
    out = []
    for row in rows:
        if row.name not in before:
            raise UserError(f"train.tuned_on: its model has no {row.name}", expected="the same kinds of layers")
        inputs = _inputs(row, axes) / _inputs(row, small)
        spread, rate, fold, eps = 1.0, 1.0, 1.0, 1 / width
        if row.group == "matrix":
            spread, rate = inputs**-0.5, 1 / inputs
        if row.name == "head.weight" or row.axes == "choice embed":
            fold = 1 / inputs
        if tied and row.name in ("norm.weight", "norm.bias"):
            fold = 1 / width
        if row.name.startswith("blocks."):
            eps /= depth
        if ends_branch(row, before):
            fold = 1 / depth
        if makes_queries(row, before):
            fold = (small["q"][1] / axes["q"][1]) ** 0.5
        started = _started(before[row.name], base.initializer_range, _inputs(row, small), spread * fold)
        out.append(replace(row, draw=started.draw, std=started.std, scale=Scale(rate * fold, fold, eps / fold)))
    return out


def _inputs(row: Weight, axes: Mapping[str, Axis]) -> int:
    return sum(segments(row.axes.split()[-1], axes))


def _started(row: Weight, std: float, inputs: int, factor: float) -> Weight:
    """The small model's row with `factor` times its first values."""
    if row.drawn == "zeros":
        return row
    if row.drawn == "ones":
        return replace(row, draw="ones", std=factor * (1.0 if row.std is None else row.std))
    if row.drawn == "fan_in":
        return replace(row, draw="normal", std=factor * (1.0 if row.std is None else row.std) * inputs**-0.5)
    return replace(row, std=factor * (std if row.std is None else row.std))


def ends_branch(row: Weight, rows: Mapping[str, Weight]) -> bool:
    """Whether what it makes is added to the stream: a block's matrix into "embed", and its bias."""
    *_, first, last = ["", *row.axes.split()]
    if not row.name.startswith("blocks."):
        return False
    if row.group == "matrix":
        return first == "embed"
    sibling = rows.get(row.name.removesuffix("bias") + "weight", row)
    return last == "embed" and row.name.endswith("bias") and (sibling is row or sibling.group == "matrix")


def makes_queries(row: Weight, rows: Mapping[str, Weight]) -> bool:
    """Whether scores are proportional to it: the norm of every head's queries, or else what queries are made by."""
    normed = any(one.shared_by == "q" for one in rows.values())
    return row.shared_by == "q" if normed else row.axes.split()[0] == "q"


def _check_folds(family: ModuleType, base: Any) -> None:
    """Raises UserError for what is no decoder of plain embeddings, or where what a block adds to the stream does not
    double with its branches' ends, as behind a norm: tried on the small model, drawn at random."""
    model, rows = make(family, base).double(), family.weights(base)
    if not isinstance(model, Decoder) or model.embed_scale is not None or model.hidden_scale is not None:
        what = f"train.tuned_on: {family.ARCHITECTURE} scales its ends, or is no decoder"
        raise UserError(what, expected="a family whose embeddings and last hidden states are taken as they are")
    generator, added = torch.Generator().manual_seed(0), list[Tensor]()
    model.blocks[-1].register_forward_hook(lambda _, given, out: added.append(out[0] - given[0]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=generator)
        model.embed.weight.mul_(LARGE)
        for factor in (1, 2):
            for weight in expand(rows):
                if ends_branch(weight, {one.name: one for one in expand(rows)}):
                    held(model, weight.name).mul_(factor)
            model(torch.arange(min(base.vocab_size, 16))[None])
    once, twice = added
    if (twice - 2 * once).norm() > 0.05 * twice.norm():
        what = f"train.tuned_on: {family.ARCHITECTURE} norms what its branches add, and no factor can be folded into it"
        raise UserError(what, expected="a family that norms before its branches")
