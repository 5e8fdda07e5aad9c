"""AdamW on weights in bfloat16: computed in float32, and whatever is written is rounded by chance."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from pretrain.model.weights import local
from pretrain.precision.rounding import Rounding

MOMENTS = ("exp_avg", "exp_avg_sq")


class Rounded:
    """Weights, their moments and the number of steps; moments are as wide as the weights."""

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], betas: tuple[float, float], rounding: Rounding
    ) -> None:
        self.parameters, self.betas, self.rounding, self.steps = parameters, betas, rounding, 0
        self.moments = {name: [torch.zeros_like(p) for _ in betas] for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, settings: Mapping[str, Sequence[float]]) -> None:
        """One update; `settings` are the learning rate, weight decay and eps of each. A weight at a time is wide."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            held = [local(one) for one in (parameter, *self.moments[name])]
            wide = [one.float() for one in held]
            weight, mean, square = wide
            lr, decay, eps = settings[name]
            adamw(
                [weight],
                [local(parameter.grad).float()],
                [mean],
                [square],
                [],
                [torch.tensor(float(self.steps), device=weight.device)],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=lr,
                weight_decay=decay,
                eps=eps,
                maximize=False,
            )
            self.rounding.store(self.steps, name, list(zip(held, wide, strict=True)))
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """Moments and the count of steps by name."""
        count = {"steps": torch.tensor([float(self.steps)])} if self.moments else {}
        named = {
            f"{kind}.{name}": one
            for name, pair in self.moments.items()
            for kind, one in zip(MOMENTS, pair, strict=True)
        }
        return {**named, **count}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state."""
        for name, own in self.state().items():
            if name in state and name != "steps":
                own.copy_(state[name])
        self.steps = int(state["steps"]) if "steps" in state else 0
