"""What this machine has and can do, measured, and what would go wrong."""

import argparse
import importlib.util
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measures for a few seconds and prints."""
    import torch

    from pretrain.base.units import show_bytes, show_flops
    from pretrain.precision.policy import native_bf16
    from pretrain.train import machine

    where, here = machine.device(), Path.cwd()
    written, read = machine.disk_bytes_per_second(here)
    able, compiler = machine.compiler_answer()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(0) if where == "cuda" else "cpu",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_bytes": machine.memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(here).free,
        "disk_write_bytes_per_second": written,
        "disk_read_bytes_per_second": read,
        "matmul_fp32_flops_per_second": machine.matmul_flops_per_second(where, torch.float32, 1.0),
        "matmul_bf16_flops_per_second": machine.matmul_flops_per_second(where, torch.bfloat16, 1.0),
        "native_bf16": native_bf16(where),
        "compiler": compiler,
        "dev_extra": all(importlib.util.find_spec(name) for name in ("pytest", "transformers", "mypy")),
    }
    warnings = [sentence for true, sentence in (
        (where == "cpu", "No accelerator: models beyond about 20M parameters will take days."),
        (not facts["native_bf16"], "No native bf16: training runs in float32."),
        (not able, f"{compiler[0].upper()}{compiler[1:]}."),
        (facts["memory_bytes"] < 4 * 2**30, "Less than 4 GiB of memory: even the quickstart may not fit."),
        (facts["disk_free_bytes"] < 5 * 2**30, "Less than 5 GiB free on this disk: checkpoints may not fit."),
        (torch.get_num_threads() > (os.cpu_count() or 1), "More threads than cores: they will wait for each other."),
    ) if true]  # fmt: skip
    if arguments.json:
        print(json.dumps({**facts, "warnings": warnings}))
        return 0
    for name, value in facts.items():
        shown = value
        if name.endswith("flops_per_second"):
            shown = show_flops(value)
        elif name.endswith("bytes_per_second"):
            shown = f"{show_bytes(value)}/s"
        elif name.endswith("bytes"):
            shown = show_bytes(value)
        elif isinstance(value, bool):
            shown = "yes" if value else "no"
        label = name.removesuffix("_flops_per_second").removesuffix("_bytes_per_second").removesuffix("_bytes")
        print(f"{label.replace('_', ' '):<15} {shown}")
    print("\nWhat would go wrong:" if warnings else "\nNothing stands in the way.")
    for sentence in warnings:
        print(f"- {sentence}")
    return 0
