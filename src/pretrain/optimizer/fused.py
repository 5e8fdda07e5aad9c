"""torch's fused AdamW under names, so that its state can be saved without pickle."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


class Fused:
    """AdamW over groups of (parameters by name, learning rate, weight decay)."""

    def __init__(
        self, parts: Sequence[tuple[Mapping[str, nn.Parameter], float, float]], betas: tuple[float, float], eps: float
    ) -> None:
        self.parameters = {name: parameter for part, _, _ in parts for name, parameter in part.items()}
        self._rates = [lr for part, lr, _ in parts if part]
        tables = [{"params": list(part.values()), "lr": lr, "weight_decay": decay} for part, lr, decay in parts if part]
        self._inner = torch.optim.AdamW(tables, betas=betas, eps=eps, fused=True)

    def step(self, scale: float) -> None:
        """One update with every learning rate times `scale`."""
        for group, rate in zip(self._inner.param_groups, self._rates, strict=True):
            group["lr"] = rate * scale
        self._inner.step()

    def state(self) -> dict[str, Tensor]:
        """Moments and the count of steps by name."""
        out: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            held = self._inner.state[parameter]
            if held:
                out |= {f"{moment}.{name}": held[moment] for moment in MOMENTS}
                out["steps"] = held["step"].reshape(1)
        return out

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state."""
        for name, parameter in self.parameters.items():
            if f"{MOMENTS[0]}.{name}" in state:
                held = {moment: state[f"{moment}.{name}"].clone().to(parameter.device) for moment in MOMENTS}
                self._inner.state[parameter] = {**held, "step": state["steps"].reshape(()).clone()}
