"""Which numbers a run computes in: weights, gradients and sums in float32, products in something narrower (Micikevicius
et al. 2018, arXiv 1710.03740), or matrices that are bfloat16 altogether."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from pretrain.base.errors import UserError
from pretrain.precision import fp8, mx
from pretrain.precision.linear import Kind, Scaling

PARTS = ("embedding", "output", "router")
NARROW: dict[Kind, str] = {
    "fp8": "float8 e4m3, gradients e5m2, a scale a tensor",
    "fp8_rowwise": "float8 e4m3, a scale a row",
    "mxfp8": "MXFP8 e4m3, a scale for 32 numbers",
}


@dataclass(frozen=True)
class Policy:
    """The dtype of products on a device; how those of matrices are narrower still, if they are; whether matrices are
    bfloat16 altogether, and which parts stay `higher` then."""

    compute: torch.dtype
    device: str
    scaling: Scaling | None = None
    pure: bool = False
    higher: tuple[str, ...] = PARTS

    @property
    def name(self) -> str:
        """Its name in a recipe."""
        if self.scaling is not None:
            return self.scaling.kind
        return "fp32" if self.compute is not torch.bfloat16 else "bf16_pure" if self.pure else "bf16"

    @property
    def gathered(self) -> torch.dtype:
        """What matrices that are kept in float32 are sent as to ranks that multiply by them: scales are of float32."""
        return self.compute if self.scaling is None else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device, self.compute) if self.compute is torch.bfloat16 else nullcontext()

    @property
    def emulated(self) -> str:
        """Why numbers are emulated, where the device lacks the units, else ""."""
        if self.scaling is None or self.scaling.native:
            return ""
        lacks = "CUDA 10.0 or later" if self.scaling.kind == "mxfp8" else "CUDA 8.9 or later"
        return f"emulated, slower than bf16: no units for it here, as a GPU of {lacks} has"

    def parts(self) -> dict[str, str]:
        """What each part of a model is kept and multiplied in, in words."""
        wide = "float32"
        product = "" if self.compute is torch.float32 else " with products in bfloat16"
        weights = "bfloat16, rounded by chance" if self.pure else wide
        narrow = f" with products in {NARROW[self.scaling.kind]}" if self.scaling else product
        kept = {part: wide if part in self.higher or not self.pure else "bfloat16, rounded by chance" for part in PARTS}
        return {
            "matrices": weights if self.pure else f"{wide}{narrow}",
            "embedding": kept["embedding"],
            "output": kept["output"] + ("" if kept["output"] != wide else product),
            "router": kept["router"] + ("" if kept["router"] == wide else " with products in float32"),
            "norms": kept["embedding"],
        }

    def sentence(self) -> str:
        """All of it in a line."""
        parts = "; ".join(f"{part} {how}" for part, how in self.parts().items())
        return f"precision {self.name}{self.emulated and f' ({self.emulated})'}: {parts}"


def choose(precision: str, device: str, higher: Iterable[str] = PARTS) -> Policy:
    """The policy of a recipe's `train.precision`; "auto" is bf16 where the device multiplies it natively. Raises
    UserError where a part is to be narrower than it can be."""
    higher = tuple(higher)
    if precision == "auto":
        precision = "bf16" if native_bf16(device) else "fp32"
    if precision in NARROW:
        if "output" not in higher:
            what = f"train.higher: the output's products are bfloat16 at least, with {precision} too"
            raise UserError(what, expected='"output" in it, or train.precision = "bf16_pure"')
        units = mx.native(device) if precision == "mxfp8" else fp8.native(device)
        return Policy(torch.bfloat16, device, Scaling(precision, units))
    compute = torch.float32 if precision == "fp32" else torch.bfloat16
    return Policy(compute, device, pure=precision == "bf16_pure", higher=higher)


def native_bf16(device: str) -> bool:
    """Whether a device has bf16 matrix units: CUDA from 8.0 on, Apple's GPUs, CPUs with AVX512_BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = Path("/proc/cpuinfo")
    if device != "cpu" or not flags.exists():
        return device == "mps"
    return any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))
