"""Writes docs/layouts.md from a run of every layout with every family: python tests/parallel/page.py."""

import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))
from pretrain.base.extension import find
from pretrain.parallel.layout import Layout
from ranks import ranks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "layouts.md"
STEPS, SOME = 20, 5
AMONG = (Layout(shard=4, ep=2), Layout(shard=2, tp=2, ep=2), Layout(shard=2, cp=2, ep=2), Layout(shard=2, pp=2, ep=2))
HEAD = """# Layouts

Made by `make layouts` at commit {commit} on {day}, with torch {torch}: {steps} steps of AdamW on 4 gloo ranks in
float64, targets counted unequally by rank and micro-batch, attention inside documents, clipping and z-loss on. Each
number is the largest relative difference from one process: of any step's loss and gradient norm, and of every weight's
last gradient and value. Families are small; `deepseek_v3`, `mixtral` and `qwen3_moe` are balanced as `[train.balance]`
says. Biases of keys in BERT and RoBERTa are zero but for rounding, and are held to a thousandth of the largest weight.
The tests hold a part of this to 1e-11.

"""


def layouts(family: str) -> list[Layout]:
    """Those that are tried; experts are divided where there are any."""
    from parallel.test_apply import LAYOUTS, MODELS

    experts = "expert" in find("model.families", family).Config(**MODELS[family]).axes()
    return [*LAYOUTS, *(AMONG if experts else ())]


@ranks(4)
def measured(family: str, first: int, place: str) -> None:
    """Some of the layouts, from one on: ranks that take longer than a test count as hung."""
    from parallel.test_apply import deviations

    found = deviations(family, "adamw", torch.float64, STEPS, layouts(family)[first : first + SOME])
    every: list[list[float]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, found)
    if dist.get_rank() == 0:
        Path(place).write_text(json.dumps([max(column) for column in zip(*every, strict=True)]))


def main() -> int:
    from parallel.test_apply import LAYOUTS, MODELS

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    facts = {"commit": commit.strip(), "day": date.today(), "torch": torch.__version__.partition("+")[0]}
    columns = [*LAYOUTS, *AMONG]
    lines = [f"| family | {' | '.join(map(str, columns))} |", "|---" * (len(columns) + 1) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for family in sorted(MODELS):
            numbers = list[float]()
            for first in range(0, len(layouts(family)), SOME):
                measured(family, first, place := f"{folder}/{family}.json")
                numbers += json.loads(Path(place).read_text())
            cells = [f"{number:.0e}" for number in numbers] + ["–"] * (len(columns) - len(numbers))
            lines.append(f"| `{family}` | {' | '.join(cells)} |")
            sys.stdout.write(f"{lines[-1]}\n")
    PAGE.write_text(HEAD.format(steps=STEPS, **facts) + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
