"""Closed form: examples/loop.py teaches a module that is not ours what a chain of tokens says."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch

from pretrain.base.files import digest
from pretrain.shards.write import ShardWriter

LOOP = Path(__file__).parents[1] / "examples" / "loop.py"


def test_the_loop_learns_a_chain(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("loop", LOOP)
    assert spec is not None and spec.loader is not None
    loop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loop)
    writer = ShardWriter(tmp_path, vocab_size=32, shard_tokens=4096, end=31)
    for number in range(64):
        place, tokens = number % 31, []
        for _ in range(300):
            tokens.append(place)
            place = (3 * place + 1) % 31  # every token says the next
        writer.add(digest(str(number).encode()), np.array(tokens))
    writer.close()
    torch.manual_seed(0)
    losses = loop.main(tmp_path, steps=40)
    assert losses[0] > 0.9 * math.log(32) and losses[-1] < 0.2 * math.log(32)
    assert len(LOOP.read_text().splitlines()) < 80
