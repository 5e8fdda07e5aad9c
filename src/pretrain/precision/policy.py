"""Weights, gradients and sums in float32; matrix products in the compute dtype (Micikevicius et al. 2018)."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Policy:
    """The dtype of matrix products on a device."""

    compute: torch.dtype
    device: str

    @property
    def name(self) -> str:
        """Its name in a recipe."""
        return "bf16" if self.compute is torch.bfloat16 else "fp32"

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device, self.compute) if self.compute is torch.bfloat16 else nullcontext()


def choose(precision: str, device: str) -> Policy:
    """The policy of a recipe's `train.precision`; "auto" is bf16 where the device multiplies it natively."""
    if precision == "auto":
        precision = "bf16" if native_bf16(device) else "fp32"
    return Policy(torch.bfloat16 if precision == "bf16" else torch.float32, device)


def native_bf16(device: str) -> bool:
    """Whether a device has bf16 matrix units: CUDA from 8.0 on, Apple's GPUs, CPUs with AVX512_BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    flags = Path("/proc/cpuinfo")
    if device != "cpu" or not flags.exists():
        return device == "mps"
    return any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))
