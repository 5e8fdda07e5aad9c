"""Size and arithmetic of a model, counted from its table."""

from collections.abc import Mapping, Sequence
from math import prod

from pretrain.model.weights import Axis, Weight, expand


def active_parameters(rows: Sequence[Weight], axes: Mapping[str, Axis]) -> int:
    """Parameters that a token meets: of every stack of experts, the `chosen` ones."""
    return sum(_active(w, axes) for w in expand(rows) if w.tied is None and not w.buffer)


def _active(weight: Weight, axes: Mapping[str, Axis]) -> int:
    """Numbers of a weight on a token's way; the axis "chosen" counts the experts that a token sees."""
    whole = prod(weight.shape(axes))
    return whole // axes["expert"][0] * axes["chosen"][0] if weight.stacked else whole


def training_flops_per_token(rows: Sequence[Weight], axes: Mapping[str, Axis], layers: int, sequence: int) -> float:
    """FLOP of forward and backward a token.

    6 a matrix weight that a token meets, the head counted once and the embeddings' lookups not, and
    6 · layers · q · sequence for causal attention (Chowdhery et al. 2022, PaLM, appendix B, halved for causality).
    """
    products = [w for w in expand(rows) if w.name == "head.weight" or w.group == "matrix" or w.axes == "choice embed"]
    heads, width = axes["q"]
    return 6 * sum(_active(w, axes) for w in products) + 6 * layers * heads * width * sequence
