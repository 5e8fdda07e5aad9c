"""Writes docs/models.md from a run of the oracle tests: python tests/oracles/page.py."""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import transformers

from pretrain.base.extension import find, names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"
MADE = f"torch {torch.__version__.partition('+')[0]} and transformers {transformers.__version__}"
HEAD = f"""# Models

Made by `make models` from a run of `tests/oracles`, with {MADE}.
A family is one file in `src/pretrain/model/families`; its name is what `model.use` says.

Each variation is a small model of that shape. Every parameter and buffer is drawn anew, transformers writes it, we read
it; we write it, transformers reads it, and the tensors come back byte for byte. All is float32. Differences are shares
of the largest number: between the logits of both sides each way, and of the worst weight's gradient. The bound is 1e-5,
also for the logits through the cache and for those of documents in one row. A bias of keys moves no logit but by
rounding: gradients of BERT and RoBERTa below a hundredth of the largest of all are held to that hundredth.

## Families

| family | file | lines | variations | theirs, read by us | ours, read by them | gradients | published sizes |
|---|---|---|---|---|---|---|---|
"""
ATTENTION = """
## Attention

One entrance, `attention/entrance.py`, chooses among torch's fused kernels, FlexAttention, and FlashAttention 2 or 3
where it is installed; its rule stands there. On a CPU it is torch's. Each is held to the plain formula: torch's forward
and backward in `tests/attention/test_attention.py`, FlexAttention forward in `test_flex.py`, what FlashAttention is
handed in `test_flash.py`. FlexAttention's backward pass, which has no CPU, and FlashAttention's kernels have not
been run: no GPU was at hand. `pytest tests/attention/test_device.py` holds them to the formula on a machine that
has one.
"""


def run() -> dict[str, list[dict[str, Any]]]:
    """What the oracle tests found, by family. Exits with pytest's own code where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        oracles = [str(path) for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_page.py"]
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", f"--basetemp={folder}/runs", *oracles], cwd=ROOT)
        if done.returncode:
            sys.exit(done.returncode)
        found = [json.loads(path.read_text()) for path in Path(folder).rglob("found.json")]
    by_family = defaultdict(list)
    for one in sorted(found, key=lambda one: one["test"]):
        by_family[one["family"]].append(one)
    return by_family


def variation(test: str) -> str:
    """What stands in the brackets of a test's name; its file, if none does."""
    return test.partition("[")[2].removesuffix("]") or Path(test.partition("::")[0]).stem.removeprefix("test_")


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The page: a row for every family, then for every variation and every published size."""
    families, variations, sizes = [], [], []
    for name in names("model.families"):
        ours = found.get(name, [])
        held = [one for one in ours if "differences" in one]
        published = sorted((one["published"], variation(one["test"])) for one in ours if "published" in one)
        worst = [f"{max(column):.0e}" for column in zip(*(one["differences"] for one in held), strict=True)] or [
            "–"
        ] * 3
        file = Path(find("model.families", name).__file__ or "")
        lines = len(file.read_text().splitlines())
        link = f"[{file.name}](../src/pretrain/model/families/{file.name})"
        families.append([f"`{name}`", link, lines, len(held), *worst, len(published)])
        for one in held:
            figures = [f"{difference:.0e}" for difference in one["differences"]]
            variations.append([f"`{name}`", variation(one["test"]), f"{one['parameters']:,}", *figures])
        sizes += [[f"`{name}`", which, f"{size:,}"] for size, which in published]
    return "\n".join([
        HEAD + table(families),
        "\n`nimble` is our own: no other implementation is there, and `tests/model/test_nimble.py` holds it to itself.",
        "\n## Variations\n\n| family | variation | parameters | theirs, read by us | ours, read by them | gradients |",
        "|---|---|---|---|---|---|\n" + table(variations),
        "\n## Published sizes\n\nA published config.json gives the published number of parameters, to the digit.\n",
        "| family | size | parameters |\n|---|---|---|\n" + table(sizes) + "\n" + ATTENTION,
    ])  # fmt: skip


def table(rows: list[list[object]]) -> str:
    """Rows as a page writes them."""
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(run()))
