"""torch's fused AdamW under names, so that its state can be saved without pickle; weights in bfloat16 by chance."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pretrain.model.weights import Weight, expand
from pretrain.optimizer.rounded import MOMENTS, Rounded
from pretrain.precision.rounding import Rounding


class Part(NamedTuple):
    """Parameters by name, and what they share."""

    parameters: Mapping[str, nn.Parameter]
    lr: float
    weight_decay: float
    eps: float


def parts(
    parameters: Mapping[str, nn.Parameter], rows: Sequence[Weight], lr: float, weight_decay: float, eps: float
) -> list[Part]:
    """Parameters by the scale of their rows; lr · weight decay is the same for all."""
    scales = {weight.name: weight.scale for weight in expand(rows)}
    alike: dict[tuple[float, float], dict[str, nn.Parameter]] = defaultdict(dict)
    for name, parameter in parameters.items():
        alike[scales[name].lr, scales[name].eps][name] = parameter
    return [Part(found, lr * rate, weight_decay / rate, eps * small) for (rate, small), found in alike.items()]


class Fused:
    """AdamW over parts of a model."""

    def __init__(self, parts: Sequence[Part], betas: tuple[float, float], rounding: Rounding) -> None:
        halves = [(part, name) for part in parts for name, p in part.parameters.items() if p.dtype is torch.bfloat16]
        self._settings = {name: part for part, name in halves}
        self._rounded = Rounded({name: part.parameters[name] for part, name in halves}, betas, rounding)
        wide = [{name: p for name, p in part.parameters.items() if name not in self._settings} for part in parts]
        parts = [part._replace(parameters=left) for part, left in zip(parts, wide, strict=True) if left]
        self.parameters = {name: parameter for part in parts for name, parameter in part.parameters.items()}
        self._rates = [part.lr for part in parts]
        tables = [
            {"params": list(one.parameters.values()), "lr": one.lr, "weight_decay": one.weight_decay, "eps": one.eps}
            for one in parts
        ]
        self._inner = torch.optim.AdamW(tables, betas=betas, fused=True) if tables else None

    def step(self, scale: float) -> None:
        """One update with every learning rate times `scale`."""
        if self._inner is not None:
            for group, rate in zip(self._inner.param_groups, self._rates, strict=True):
                group["lr"] = rate * scale
            self._inner.step()
        self._rounded.step({name: (one.lr * scale, one.weight_decay, one.eps) for name, one in self._settings.items()})

    def state(self) -> dict[str, Tensor]:
        """Moments and the count of steps by name."""
        out = self._rounded.state()
        for name, parameter in self.parameters.items():
            assert self._inner is not None
            held = self._inner.state[parameter]
            if held:
                out |= {f"{moment}.{name}": held[moment] for moment in MOMENTS}
                out["steps"] = held["step"].reshape(1)
        return out

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a saved state."""
        self._rounded.load(state)
        for name, parameter in self.parameters.items():
            assert self._inner is not None
            if f"{MOMENTS[0]}.{name}" in state:
                held = {moment: state[f"{moment}.{name}"].clone().to(parameter.device) for moment in MOMENTS}
                self._inner.state[parameter] = {**held, "step": state["steps"].reshape(()).clone()}
