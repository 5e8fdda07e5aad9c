"""What this machine has and can do, measured, and what would go wrong."""

import argparse
import json
import math
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pretrain.cli.main import positive

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain doctor`."""
    parser.add_argument(
        "--ranks", type=positive, metavar="N", help="only so many processes, each on a device, beside each other"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measures for a few seconds and prints; 1 where ranks are compared and one of them is slow or wrong."""
    if arguments.ranks is not None:
        return compare(arguments.ranks, as_json=arguments.json)
    facts = examine(Path.cwd())
    wrong = troubles(facts)
    if arguments.json:
        print(json.dumps({**facts, "troubles": wrong}))
        return 0
    for label, value in table(facts):
        print(f"{label:<15} {value}".rstrip())
    print("\nWhat would go wrong:" if wrong else "\nNothing stands in the way.")
    for sentence in wrong:
        print(f"- {sentence}")
    return 0


def examine(folder: Path) -> dict[str, Any]:
    """What the machine has, and what it reaches in a few seconds of measuring; disk speeds are those of `folder`."""
    import torch

    from pretrain.precision import fp8, mx
    from pretrain.precision.policy import native_bf16
    from pretrain.train import machine

    where = machine.device()
    written, read = machine.disk_bytes_per_second(folder)
    able, compiler = machine.compiler_answer()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "pretrain": metadata.version("pretrain"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "extras": extras(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cores": usable,
        "threads": torch.get_num_threads(),
        "busy_cores": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "memory_bytes": machine.memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(folder).free,
        "disk_write_bytes_per_second": written,
        "disk_read_bytes_per_second": read,
        "matmul_fp32_flops_per_second": machine.matmul_flops_per_second(where, torch.float32, 1.0),
        "matmul_bf16_flops_per_second": machine.matmul_flops_per_second(where, torch.bfloat16, 1.0),
        "native_bf16": native_bf16(where),
        "native_fp8": fp8.native(where),
        "native_mxfp8": mx.native(where),
        "can_compile": able,
        "compiler": compiler,
    }


def compare(ranks: int, *, as_json: bool) -> int:
    """Each rank's device beside the others', as a table."""
    from pretrain.parallel import launch

    if ranks > 1 and not launch.started():
        return launch.start(ranks, sys.argv[1:], launch.Rule())
    from pretrain.parallel.health import MEASURES, judge, measure
    from pretrain.precision.policy import choose
    from pretrain.train import machine

    where = machine.device()
    with launch.joined(where, together=True):
        every = measure(launch.host(), where, choose("auto", where).compute, launch.here())
    found = judge(every)
    if launch.rank() == 0 and as_json:
        measured = [{name: value if value == value else None for name, value in vars(one).items()} for one in every]
        print(json.dumps({"ranks": measured, "found": [vars(one) for one in found]}))
    elif launch.rank() == 0:
        measures = [one for one in MEASURES if any(math.isfinite(getattr(rank, one.name)) for rank in every)]
        rows = [["rank", "host", "device", *(one.name for one in measures)]]
        for rank, one in enumerate(every):
            shown = [(measure.show, getattr(one, measure.name)) for measure in measures]
            rows.append([str(rank), one.host, one.device, *(show(x) if math.isfinite(x) else "" for show, x in shown)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        print("\nSlow or wrong:" if found else "\nNone is slow, none is wrong.")
        for finding in found:
            print(f"- {finding}")
    return 1 if found else 0


def extras() -> dict[str, list[str]]:
    """The package's optional extras, each with what is missing of it."""
    found: dict[str, list[str]] = {name: [] for name in metadata.metadata("pretrain").get_all("Provides-Extra") or []}
    for line in metadata.requires("pretrain") or []:
        said = re.match(r"([\w.-]+).*;.*\bextra\s*==\s*[\"']([\w.-]+)[\"']", line)
        if said and not any(metadata.distributions(name=said[1])):
            found[said[2]].append(said[1])
    return found


def troubles(facts: dict[str, Any]) -> list[str]:
    """What would go wrong with these facts, a plain sentence each."""
    compiler, cores, threads, busy = (facts[name] for name in ("compiler", "cores", "threads", "busy_cores"))
    ratio = facts["matmul_bf16_flops_per_second"] / facts["matmul_fp32_flops_per_second"]
    sentences = [
        (not facts["accelerators"], "No accelerator: models beyond about 20M parameters will take days."),
        (
            not facts["native_bf16"],
            f"No native bf16 (its products run at {ratio:.1f} times the speed of float32): training runs in float32.",
        ),
        (
            facts["native_bf16"] and ratio < 1,
            f"bf16 products run at only {ratio:.1f} times the speed of float32: say train.precision=fp32.",
        ),
        (not facts["can_compile"], f"{compiler[0].upper()}{compiler[1:]}."),
        (facts["memory_bytes"] < 4 * GIB, "Less than 4 GiB of memory: even the quickstart may not fit."),
        (facts["disk_free_bytes"] < 5 * GIB, "Less than 5 GiB free on this disk: checkpoints may not fit."),
        (threads > cores, f"{threads} threads on {cores} cores wait for each other: say run.threads={cores}."),
        (
            threads < cores and not facts["accelerators"],
            f"Only {threads} of {cores} cores would work: unset OMP_NUM_THREADS, or say run.threads={cores}.",
        ),
        (busy > cores / 2, f"Other work keeps {busy:.1f} of {cores} cores busy: what is measured here is too low."),
    ]
    return [sentence for true, sentence in sentences if true]


def table(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as a person reads them, a label and a value a line."""
    from pretrain.base.units import show_bytes, show_flops

    def installed(name: str, missing: list[str]) -> str:
        return f"{name} ({'whole' if not missing else 'without ' + ', '.join(missing)})"

    return [
        ("pretrain", f"{facts['pretrain']}, Python {facts['python']}, torch {facts['torch']}"),
        ("extras", ", ".join(installed(*one) for one in facts["extras"].items()) or "none"),
        ("accelerators", ", ".join(facts["accelerators"]) or "none"),
        ("cores", f"{facts['cores']}, {facts['threads']} threads for training"),
        ("memory", show_bytes(facts["memory_bytes"])),
        ("matmul fp32", show_flops(facts["matmul_fp32_flops_per_second"])),
        ("matmul bf16", show_flops(facts["matmul_bf16_flops_per_second"])),
        ("narrow units", ", ".join(kind for kind in ("bf16", "fp8", "mxfp8") if facts[f"native_{kind}"]) or "none"),
        ("disk free", show_bytes(facts["disk_free_bytes"])),
        ("disk write", f"{show_bytes(facts['disk_write_bytes_per_second'])}/s"),
        ("disk read", f"{show_bytes(facts['disk_read_bytes_per_second'])}/s"),
        ("compile", facts["compiler"]),
    ]
