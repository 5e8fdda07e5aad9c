"""Arithmetic of a model, counted from its table."""

from collections.abc import Mapping, Sequence
from math import prod

from pretrain.model.weights import Axis, Weight, expand


def training_flops_per_token(rows: Sequence[Weight], axes: Mapping[str, Axis], layers: int, sequence: int) -> float:
    """FLOP of forward and backward a token.

    6 a matrix weight, the head counted once and the embedding's lookup not, and 6 · layers · q · sequence for causal
    attention (Chowdhery et al. 2022, PaLM, appendix B, halved for causality).
    """
    every = expand(rows)
    matrices = sum(prod(w.shape(axes)) for w in every if len(w.axes.split()) > 1 and w.name != "embed.weight")
    heads, width = axes["q"]
    return 6 * matrices + 6 * layers * heads * width * sequence
