"""Arithmetic of a model, counted from its table."""

from collections.abc import Mapping, Sequence
from math import prod

from pretrain.model.weights import Axis, Weight, expand


def training_flops_per_token(rows: Sequence[Weight], axes: Mapping[str, Axis], layers: int, sequence: int) -> float:
    """FLOP of forward and backward a token.

    6 a matrix weight, the head counted once and the embeddings' lookups not, and 6 · layers · q · sequence for causal
    attention (Chowdhery et al. 2022, PaLM, appendix B, halved for causality).
    """
    every = expand(rows)
    products = [w for w in every if w.name == "head.weight" or (" " in w.axes and "vocab" not in w.axes)]
    matrices = sum(prod(w.shape(axes)) for w in products)
    heads, width = axes["q"]
    return 6 * matrices + 6 * layers * heads * width * sequence
