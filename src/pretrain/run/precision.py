"""What numbers a run computes in: known, and told where it is unusual, before any work."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pretrain.base.errors import UserError
from pretrain.events.kinds import Notice
from pretrain.precision.policy import Policy, choose
from pretrain.recipe.recipe import Recipe
from pretrain.train import machine

if TYPE_CHECKING:
    from pretrain.checkpoint.state import State


def policy_of(recipe: Recipe) -> Policy:
    """The policy of a recipe on this machine. Raises UserError."""
    try:
        return choose(recipe.train.precision, machine.device(), recipe.train.higher)
    except UserError as error:
        error.where = str(recipe.origin("train.higher"))
        raise


def notice(recipe: Recipe) -> Notice:
    """What each part of the model is kept and multiplied in, and whether the machine has units for it."""
    policy = policy_of(recipe)
    return Notice("warning" if policy.emulated else "info", policy.sentence())


def stays_wide(names: Sequence[str], policy: Policy) -> Notice:
    """Of matrices whose products could not be made narrow."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    assert policy.scaling is not None, "else there are none"
    why = f"sizes that are no multiples of {policy.scaling.grain}, or no linear layer"
    return Notice("warning", f"products in bfloat16, not {policy.name}: {shown} ({why})")


def within(policy: Policy, call: "Callable[[State], None]") -> "Callable[[State], None]":
    """A callable of a state, which computes as steps do."""

    def inside(state: "State") -> None:
        with policy.autocast():
            call(state)

    return inside
