"""Mixtures of experts (Shazeer et al. 2017, arXiv 1701.06538): a router chooses, no token is ever dropped.

Tokens are sorted by expert and go through one grouped product (Gale et al. 2022, MegaBlocks, arXiv 2211.15841).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grouped_mm, linear, one_hot

from pretrain.model.layers.feed_forward import ACTIVATIONS
from pretrain.precision.linear import Scaling, scaled_linear

Stacks = Callable[[Tensor, Tensor], Tensor]  # rows [n, embed] sorted by expert, how many each has: the same rows after
Dispatch = Callable[[Tensor, Tensor, Stacks], Tensor]
GROUPED = (torch.bfloat16, torch.float16, torch.float32)
EXTRA = 3  # statistics of a layer beside its load


class Choice(NamedTuple):
    """What a router says of tokens […]: logits and share [… , experts], where shares sum to one, and of the chosen
    experts […, top_k] their numbers and weights."""

    logits: Tensor
    share: Tensor
    experts: Tensor
    weights: Tensor


class Router(nn.Module):
    """Scores every expert by a product with the token and keeps the best `top_k`; float32 at least.

    Weights are the scores of the chosen, summing to one if `renormalise`, times `scale`. With `balanced`, a bias that
    balancing moves is added to what is compared and to nothing else (Wang et al. 2024, arXiv 2408.15664). Of `groups`
    of experts only the best `kept` are looked at, each judged by its two best (DeepSeek-AI 2024, arXiv 2412.19437).
    """

    balance_bias: Tensor | None

    def __init__(
        self,
        width: int,
        experts: int,
        top_k: int,
        *,
        score: Literal["softmax", "sigmoid"] = "softmax",
        renormalise: bool = True,
        scale: float = 1.0,
        bias: bool = False,
        balanced: bool = False,
        groups: int = 1,
        kept: int = 1,
    ) -> None:
        super().__init__()
        self.top_k, self.score, self.renormalise, self.scale = top_k, score, renormalise, scale
        self.groups, self.kept = groups, kept
        self.weight = nn.Parameter(torch.empty(experts, width))
        self.bias = nn.Parameter(torch.zeros(experts)) if bias else None
        self.register_buffer("balance_bias", torch.zeros(experts) if balanced else None)

    def forward(self, x: Tensor) -> Choice:
        """The choice of tokens x […, embed]."""
        with torch.autocast(x.device.type, enabled=False):
            kind = torch.promote_types(x.dtype, torch.float32)
            logits = linear(x.to(kind), self.weight.to(kind), None if self.bias is None else self.bias.to(kind))
            scores = logits.softmax(-1) if self.score == "softmax" else logits.sigmoid()
            experts = self.best(scores.detach())
            weights = scores.gather(-1, experts)
            if self.renormalise:
                weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
            share = scores if self.score == "softmax" else scores / scores.sum(-1, keepdim=True)
            return Choice(logits, share, experts, weights * self.scale)

    def best(self, scores: Tensor) -> Tensor:
        """Numbers [..., top_k] of the experts that are compared best."""
        if self.balance_bias is not None:
            scores = scores + self.balance_bias
        if self.groups > 1:
            grouped = scores.unflatten(-1, (self.groups, -1))
            kept = grouped.topk(2, -1).values.sum(-1).topk(self.kept, -1).indices
            looked_at = one_hot(kept, self.groups).sum(-2).bool()
            scores = grouped.masked_fill(~looked_at[..., None], -torch.inf).flatten(-2)
        return scores.topk(self.top_k, -1).indices


class GLUs(nn.Module):
    """A stack of gated linear units, one for each expert: down(activation(gate x) · up x).

    `scaled` says of which matrices products are taken in narrow numbers.
    """

    def __init__(self, width: int, inner: int, experts: int, *, activation: str = "silu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.gate = nn.Parameter(torch.empty(experts, inner, width))
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.down = nn.Parameter(torch.empty(experts, width, inner))
        self.scaled: dict[str, Scaling] = {}

    def forward(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Rows [n, embed] sorted by expert; counts [experts] say how many each has."""
        gate, up, down = map(self.scaled.get, ("gate", "up", "down"))
        inner = self.activation(grouped(rows, self.gate, counts, gate)) * grouped(rows, self.up, counts, up)
        return grouped(inner, self.down, counts, down)


class Experts(nn.Module):
    """The `stacks` that a router chooses from, each token's outputs weighted and summed; a `shared` one sees all.

    `dispatch` is the seam where expert parallelism sends rows to the ranks that hold their experts, and back; `reduce`
    the one where tensor parallelism adds up what ranks with a part of every expert have made; `sequence` the one where
    ranks with a part of every sequence add up what they have counted in theirs.
    """

    def __init__(self, router: Router, stacks: nn.Module, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.router, self.stacks, self.shared = router, stacks, shared
        self.dispatch: Dispatch | None = None
        self.reduce: Callable[[Tensor], Tensor] | None = None
        self.sequence: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[batch, seq, embed] like x, and the statistics of the tokens that are `counted` [batch, seq], else of all."""
        choice = self.router(x)
        top_k, count = choice.experts.shape[-1], choice.logits.shape[-1]
        chosen = choice.experts.flatten()
        order = chosen.argsort(stable=True)  # places token · top_k + choice, by expert
        counts = chosen.new_zeros(count).scatter_add(0, chosen, torch.ones_like(chosen))
        rows = x.flatten(0, -2).index_select(0, order // top_k)
        out = self.stacks(rows, counts) if self.dispatch is None else self.dispatch(rows, counts, self.stacks)
        out = out.index_select(0, order.argsort()).unflatten(0, choice.experts.shape)
        y = (out * choice.weights[..., None]).sum(-2).to(x.dtype)
        y = y if self.reduce is None else self.reduce(y)
        return y if self.shared is None else y + self.shared(x), statistics(choice, counted, self.sequence)


def grouped(rows: Tensor, stack: Tensor, counts: Tensor, scaling: Scaling | None = None) -> Tensor:
    """[n, out] of rows [n, in], sorted by expert, through each expert's matrix of a stack [experts, out, in].

    Rule: torch's grouped product, where it has the dtype (compiled, bfloat16 alone) and rows begin at multiples of 16
    bytes; else, or where products are scaled, each expert's by itself, one by one.
    """
    if scaling is not None:
        parts = zip(rows.split(counts.tolist()), stack.unbind(), strict=True)
        return torch.cat([scaled_linear(part, matrix, scaling) for part, matrix in parts])
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        rows, stack = rows.to(dtype), stack.to(dtype)
    aligned = all(size * rows.element_size() % 16 == 0 for size in stack.shape[1:])
    kinds = GROUPED[:1] if torch.compiler.is_compiling() else GROUPED
    if device in ("cpu", "cuda") and rows.dtype in kinds and aligned:
        return grouped_mm(rows, stack.mT, offs=counts.cumsum(0, dtype=torch.int32))
    return one_by_one(rows, stack, counts)


def one_by_one(rows: Tensor, stack: Tensor, counts: Tensor) -> Tensor:
    """The same by a product for each expert."""
    parts = rows.split(counts.tolist())
    return torch.cat([linear(part, matrix) for part, matrix in zip(parts, stack.unbind(), strict=True)])


class Routing(NamedTuple):
    """Statistics of layers, sums over what was counted: load [layers, experts], the tokens that each expert had;
    balance, z and entropy [layers]."""

    load: Tensor
    balance: Tensor
    z: Tensor
    entropy: Tensor


def statistics(choice: Choice, counted: Tensor | None, sequence: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Of one layer, float32 [experts + 3]: what `routing` takes apart.

    Balance is experts · Σ load · share of each sequence, both means over its tokens (Fedus et al. 2021, arXiv
    2101.03961, 2.2), summed over the sequences, so that it does not depend on how a batch is cut. z is the sum of
    (log Σ exp logits)² (Zoph et al. 2022, arXiv 2202.08906, 3.2); entropy, in nats, is of a token's shares. Of a part
    of each sequence, balance is that part's term of the sum over tokens: load and length are the whole `sequence`'s.
    """
    count = choice.logits.shape[-1]
    kept = torch.ones_like(choice.logits[..., 0]) if counted is None else counted.to(choice.logits.dtype)
    load = torch.zeros_like(choice.logits[:, 0]).scatter_add(
        -1, choice.experts.flatten(1), kept.repeat_interleave(choice.experts.shape[-1], 1)
    )
    share = (choice.share * kept[..., None]).sum(1)
    whole = torch.cat([load, kept.sum(-1, keepdim=True)], -1)  # [batch, experts + 1], without gradient
    whole = whole if sequence is None else sequence(whole)
    tokens = whole[:, -1:].clamp_min(1)
    balance = count * (whole[:, :-1] / tokens * share / tokens).sum()
    z = (choice.logits.logsumexp(-1).square() * kept).sum()
    with torch.no_grad():
        entropy = (torch.special.entr(choice.share).sum(-1) * kept).sum()
    return torch.cat([load.sum(0), torch.stack([balance, z, entropy])]).float()


def routing(aux: Tensor, experts: int) -> Routing:
    """The statistics that a stack's layers left one after another."""
    load, rest = aux.view(-1, experts + EXTRA).split([experts, EXTRA], -1)
    return Routing(load, *rest.unbind(-1))
