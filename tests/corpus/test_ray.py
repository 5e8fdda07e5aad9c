"""Ordeal: on a Ray cluster of two nodes, with workers and the driver killed, the bytes are the local engine's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.corpus.task import Task
from pretrain.recipe.read import load
from pretrain.run.stages import execute

pytest.importorskip("ray", reason="a cluster's engine: pip install 'pretrain[ray]'")
MUTANTS = [
    ("src/pretrain/corpus/task.py", "times >= DEATHS and", "times >= 1 and"),
    ("src/pretrain/corpus/engine/ray.py", "if one.gpu == gpu", "if one"),
]
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
    engine = find("corpus.engine", "ray").Ray(memory_bytes=10**9)

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
TOKENS = """
import os, sys
from ray.cluster_utils import Cluster
import ray
from pretrain.recipe.read import load
from pretrain.run.stages import execute

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
os.chdir(sys.argv[1])
engine = "corpus.engine={use='ray', memory_bytes=1000000000}"
execute(load("x.toml", [engine, "tokens.packing=best_fit", "train.mask=documents"]), last="tokens")
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


def run(folder: Path, *arguments: str, text: str = SCRIPT) -> int:
    script = folder / "script.py"
    script.write_text(text)
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


@pytest.mark.slow
def test_shards_and_tables_are_the_local_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are made, and rows packed, by tasks on two nodes."""
    for file in range(4):
        texts = [f"{file} {i} {'words of a page ' * (9 + (7 * file + i) % 20)}" for i in range(40)]
        (tmp_path / f"{file}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "x.toml").write_text(f"{RECIPE}[tokenizer]\nvocab_size = 300\nreserved = 16\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrain.corpus.build.KEPT_BYTES", 3000)
    options = ["tokens.packing=best_fit", "train.mask=documents", "corpus.engine.processes=0"]
    execute(load("x.toml", options), last="tokens")
    (folder,) = (tmp_path / "store").glob("tokens-*")
    expected = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sum(path.suffix == ".shard" for path in expected) > 3 < sum(path.suffix == ".npy" for path in expected)
    for made in (folder, tmp_path / "store" / "steps" / "tokens"):
        shutil.rmtree(made)
    run(tmp_path, text=TOKENS)
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == expected


def test_a_cluster_that_is_gone_is_said_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = find("corpus.engine", "ray")
    monkeypatch.setattr(module, "CONNECT_SECONDS", 1)
    with (
        pytest.raises(UserError, match=r"engine.address = '127.0.0.1:9': no Ray cluster answers"),
        module.Ray(address="127.0.0.1:9").open(tmp_path),
    ):
        raise AssertionError("there is none")


class Machines:
    """Stands for Ray: actors that answer at once with what was asked of them, and of which GPUs there are."""

    def __init__(self) -> None:
        self.gpus = 0.0
        self.most, self.living = 0, 0
        self.exceptions = SimpleNamespace(RayError=ValueError)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: object) -> Callable[[type], object]:
        def build(gpus: float) -> object:
            self.living += 1
            self.most = max(self.most, self.living)
            return SimpleNamespace(work=SimpleNamespace(remote=lambda task, journal, avoid: (task.gpu, gpus)))

        def options_of(num_gpus: float) -> object:
            return SimpleNamespace(remote=lambda memory: build(num_gpus))

        return lambda cls: SimpleNamespace(options=options_of)

    def wait(self, running: list, **options: object) -> tuple[list, list]:
        return running, []

    def get(self, running: tuple) -> tuple[str, object]:
        return "done", running

    def kill(self, handle: object) -> None:
        self.living -= 1


def test_only_steps_that_use_gpus_hold_them(tmp_path: Path) -> None:
    module, machines = find("corpus.engine", "ray"), Machines()
    pool = module._Actors(machines, module.Ray(gpus=0.5), tmp_path)
    tasks = [Task(str(i), run, (), gpu=i % 3 == 1) for i in range(20)]
    assert pool.run(tasks) == [(task.gpu, 0.5 if task.gpu else 0) for task in tasks]
    assert machines.most == 2, "no more workers than cores"
    pool.close()
    assert machines.living == 0
