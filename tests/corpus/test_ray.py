"""Ordeal: on a Ray cluster of two nodes, with workers and the driver killed, the bytes are the local engine's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="a cluster's engine: pip install 'pretrain[ray]'")
MUTANTS = [("src/pretrain/corpus/task.py", "times >= DEATHS and", "times >= 1 and")]
SCRIPT = """
import json, os, shutil, signal, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from pretrain.base.extension import find
from pretrain.corpus import parts
from pretrain.corpus.build import Build
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import source_files
from pretrain.recipe.read import load

folder, how = Path(sys.argv[1]), sys.argv[2]
parts.PART_BYTES = 2000
recipe = load(str(folder / "x.toml"))
steps, cut = Steps(folder / f"steps-{how}"), folder / f"cut-{how}"
shutil.rmtree(cut, ignore_errors=True)
cut.mkdir()
steps.root.mkdir(exist_ok=True)
if how == "local":
    engine = find("corpus.engine", "local").Local(0)
else:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    engine = find("corpus.engine", "ray").Ray()

def kill() -> None:
    for _ in range(4):
        time.sleep(0.7)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if b"ray::_Remote" in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
                break

if how == "ray":
    threading.Thread(target=kill, daemon=True).start()
if how == "driver":
    threading.Timer(float(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
files = {source.name: source_files(source) for source in recipe.corpus.sources}
with engine.open(steps.root) as pool:
    Build(recipe.corpus, 5, steps, pool, lambda said: None).run(files, cut)
os._exit(0)
"""
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["*.jsonl"]
[[corpus.steps]]
use = "length"
min_characters = 120
[[corpus.steps]]
use = "minhash"
[train]
steps = 1
batch = 64
sequence = 64
"""


def said(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def run(folder: Path, *arguments: str) -> int:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    hush = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *arguments], env=hush, capture_output=True, timeout=240, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()[-3000:]
    return done.returncode


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_change_no_byte(tmp_path: Path) -> None:
    for file in range(8):
        lines = [
            json.dumps({"text": f"{'words of page ' * (5 + i % 9)} number {(7 * file + i) % 40}"}) for i in range(30)
        ]
        (tmp_path / f"{file}.jsonl").write_text("\n".join([*lines, "{"]))
    (tmp_path / "x.toml").write_text(RECIPE)
    run(tmp_path, "local")
    expected = said(tmp_path / "cut-local")
    assert len([name for name in expected if name.startswith("verdicts")]) >= 3
    run(tmp_path, "ray")
    assert said(tmp_path / "cut-ray") == expected
    shutil.rmtree(tmp_path / "steps-ray")
    run(tmp_path, "driver", "9")
    run(tmp_path, "driver", "200")
    assert said(tmp_path / "cut-driver") == expected
