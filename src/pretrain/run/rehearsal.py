"""A recipe's step on one of many ranks, rehearsed before anything is there but the recipe."""

import torch

from pretrain.base.extension import find
from pretrain.plan.rehearse import Rehearsal, rehearse
from pretrain.precision.linear import Scaling
from pretrain.precision.policy import NARROW, Policy
from pretrain.recipe.recipe import Recipe
from pretrain.run.layout import layout_of, micro_batch


def rehearsed(recipe: Recipe, ranks: int, rank: int) -> Rehearsal:
    """On a device that multiplies in bf16, unless the recipe says otherwise. Raises UserError."""
    train, leaf = recipe.train, recipe.model.family
    config = leaf.bind(vocab_size=recipe.tokenizer.ids)
    layout = layout_of(recipe, ranks, config)
    scaling = Scaling(train.precision) if train.precision in NARROW else None  # says what is sent as it is kept
    policy = Policy(torch.float32 if train.precision == "fp32" else torch.bfloat16, "cpu", scaling)
    family, size = find(leaf.kind, leaf.use), micro_batch(train, layout)
    return rehearse(family, config, train, layout, rank=rank, policy=policy, micro_batch=size)
