"""Writes docs/faults.md from a run of every scenario of `pretrain chaos`: python tests/faults/page.py."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
RECIPE = """
[run]
name = "small"
threads = 1
health = "skip"
[[corpus.sources]]
name = "lines"
read = "jsonl"
paths = ["lines.jsonl"]
[corpus]
held_out = 0.1
[tokenizer]
vocab_size = 288
reserved = 16
multiple = 16
[tokens]
row = 32
[model]
use = "llama"
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
[train]
steps = 120
batch = 1024
sequence = 32
precision = "fp32"
checkpoint_every = 20
"""
HEAD = """# Faults, tried

```console
$ pretrain chaos --list
kill …
…
```

`pretrain chaos RECIPE [SCENARIO …] [KEY=VALUE …]` trains a recipe twice, without and with a fault, on real processes in
folders of their own (`chaos/plain`, `chaos/<scenario>`; they share `chaos/store`). It holds the two against each other:
exit codes, what the log names, the last checkpoint, tensor by tensor. It says a line for each scenario, and exits with
0 if all hold. Take a recipe of seconds or minutes that saves several times. What a run does about faults is in
[guard.md](guard.md) and [parallel.md](parallel.md).

Signals, sockets and limits (`slow`, `network`, `disk-full`) come from outside. For `nan`, `spike` and `corruption`
ranks are started by an entry of their own, `python -m pretrain.faults.inject`: what trains holds no hook. `network`
shuts connections, which both ends notice; a cable whose packets vanish looks like `hang`. Weights are "the same" if
every bit is. On fewer nodes sums are rounded in another order: then each tensor must be within a thousandth of its norm
(a run of fp32). Where a rule passes over a batch, losses must be equal up to it, and all rows after it be learned.

The table below is made by `make chaos`: commit {commit}, {day}, torch {torch}, 2 ranks (gloo) on {cores} cores; a
Llama of two layers, 120 steps in fp32, saved every 20. Seconds lost are of the time from the beginning of training to
its end; of them, starting Python and torch again is the most, and `hang` waits the 10 s of `run.hang`.

| scenario | what is done | what the log names | seconds lost | verdict |
|---|---|---|---|---|
"""


def main() -> int:
    def output(*command: str, folder: Path) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True).stdout

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small.toml").write_text(RECIPE)
        lines = [json.dumps({"text": f"{n} and {n * n} are numbers. " * 40}) for n in range(600)]
        (folder / "lines.jsonl").write_text("\n".join(lines))
        found = output(sys.executable, "-m", "pretrain", "chaos", "small.toml", "--json", folder=folder)
    commit = output("git", "rev-parse", "--short", "HEAD", folder=ROOT).strip()
    facts = {"torch": torch.__version__.partition("+")[0], "cores": os.cpu_count()}
    verdicts = json.loads(found)["scenarios"]
    rows = []
    for one in verdicts:
        ends = "does not hold: " + "; ".join(one["wrong"]) if one["wrong"] else f"holds: {one['weights']}"
        told = one["named"].replace("|", "\\|").replace(f"{folder.resolve()}/", "")
        rows.append(f"| `{one['scenario']}` | {one['done']} | {told} | {one['lost_seconds']:.0f} | {ends} |\n")
    PAGE.write_text(HEAD.format(commit=commit, day=date.today(), **facts) + "".join(rows))
    return int(any(one["wrong"] for one in verdicts))


if __name__ == "__main__":
    sys.exit(main())
