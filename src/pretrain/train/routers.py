"""What keeps the experts of a model in balance while it learns, and what is told of its routers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pretrain.model.layers.experts import EXTRA, Router, Routing, routing
from pretrain.parallel.pipeline import Elsewhere
from pretrain.recipe.train import Balance


@dataclass
class Routers:
    """The routers of a model, in the order in which its blocks leave their statistics, over one step; None for one that
    another stage has."""

    layers: list[Router | None]
    experts: int = 0  # in a layer
    seen: Tensor | None = None  # statistics of the step so far
    last: Tensor | None = None  # those of the last forward pass, with their graph

    @classmethod
    def of(cls, model: nn.Module) -> "Routers":
        """Those of a model; of most there are none."""
        layers, experts = list[Router | None](), 0
        for module in model.modules():
            if isinstance(module, Router):
                layers, experts = [*layers, module], len(module.weight)
            elif isinstance(module, Elsewhere) and module.routers:
                layers, experts = [*layers, *[None] * len(module.routers)], module.routers[0]
        return cls(layers, experts)

    @classmethod
    def before(cls, model: nn.Module, block: int) -> int:
        """How many there are before a block."""
        return len(cls.of(model.blocks[:block]).layers) if block else 0  # type: ignore[index,arg-type]

    def watched(
        self, forward: Callable[..., tuple[Any, ...]], counted: Tensor, before: int = 0
    ) -> Callable[..., tuple[Any, ...]]:
        """A forward pass that counts the tokens that are `counted` [batch, seq], and keeps its statistics, which follow
        those of the layers `before`."""

        def watching(*arguments: Any, **options: Any) -> tuple[Any, ...]:
            out = forward(*arguments, **options, counted=counted)
            size = self.experts + EXTRA
            self.last = pad(out[1], (before * size, (len(self.layers) - before) * size - len(out[1])))
            return out

        return watching if self.layers else forward

    def cost(self, balance: Balance, sequences: float, tokens: float) -> Tensor | float:
        """What the last forward pass adds to the loss: means over layers and over the whole step's sequences and
        tokens, so that it does not matter how the step is cut."""
        if self.last is None:
            return 0.0
        self.seen = self.last.detach() if self.seen is None else self.seen + self.last.detach()
        found = routing(self.last, self.experts)
        return balance.loss * found.balance.mean() / sequences + balance.z_loss * found.z.mean() / max(tokens, 1)

    @torch.no_grad()
    def rebalance(self, rate: float) -> None:
        """Moves the bias of every expert by `rate`: up where it had less than the mean load of its layer in the step,
        down where it had more (Wang et al. 2024, arXiv 2408.15664, algorithm 1)."""
        if self.found is not None:
            for router, load in zip(self.layers, self.found.load, strict=True):
                if router is not None and router.balance_bias is not None:
                    router.balance_bias += rate * torch.sign(load.mean() - load)

    @property
    def found(self) -> Routing | None:
        """The statistics of the step, if there are any."""
        return None if self.seen is None else routing(self.seen, self.experts)


def told(found: Routing | None, tokens: int) -> dict[str, Any]:
    """A step's statistics by layer, under the names of the step event's fields, where there are any."""
    if found is None:
        return {}
    busiest = found.load.max(-1).values / found.load.mean(-1).clamp_min(1e-9)
    return {
        "expert_load": busiest.tolist(),
        "experts_dead": (found.load == 0).sum(-1).tolist(),
        "router_entropy": (found.entropy / max(tokens, 1)).tolist(),
    }
