"""Ordeal: ranks that are started again find nothing of what those before them told each other."""

import os
import subprocess
import sys

MUTANTS = [
    (
        "src/pretrain/parallel/agent.py",
        "handler._shared_tcp_store_server = handler._bootstrap_store_info = None",
        "pass",
    ),
]
RANK = """
import os, sys
import torch.distributed as dist
dist.init_process_group("gloo")
store, again = dist.distributed_c10d._get_default_store(), os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
found = store.check(["left"])
dist.barrier()  # until both have looked
store.set("left", "")
sys.exit(0 if again and not found else 1)
"""
AGENT = f"""
import sys
from torch.distributed.elastic.rendezvous import RendezvousParameters
from pretrain.parallel.agent import run
from pretrain.parallel.launch import Rule
meeting = RendezvousParameters("c10d", "localhost:0", "here", 1, 1, "localhost")
sys.exit(run([sys.executable, "-c", {RANK!r}], 2, meeting, Rule(1)))
"""


def test_each_start_has_a_store_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", AGENT], env=dict(os.environ), capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
