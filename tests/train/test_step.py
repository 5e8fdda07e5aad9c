"""Twin and closed form: micro-batches with unequal counts add up to the whole batch; clipping, refusals, full disks."""

import errno
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.base import files
from pretrain.base.errors import DiskFullError, UserError
from pretrain.base.extension import find
from pretrain.checkpoint.save import load, newest, prune, save
from pretrain.checkpoint.state import State
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import held, initialise
from pretrain.order.batch import IGNORE, Batch, Vocabulary
from pretrain.order.order import History, Segment
from pretrain.precision.policy import Policy
from pretrain.release.release import agree, release
from pretrain.tokenizer.bpe import train as train_tokenizer
from pretrain.train.step import Steps, clip, train_step

MUTANTS = [
    ("src/pretrain/train/step.py", "sum_of(found) / count", "sum_of(found) / part.weights.sum()"),
    ("src/pretrain/train/step.py", "most / (norm + 1e-6)", "most * (norm + 1e-6)"),
]
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=280,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
ROWS = llama.weights(CONFIG)


def state() -> State:
    model = make(llama, CONFIG).double()
    initialise(model, ROWS, 0.1, 0)
    optimizer = find("optimizer.kinds", "adamw").AdamW().build(model, ROWS)
    return State(model, ROWS, optimizer, 0, 0, History((Segment(0, {"a": 1.0}, {}),)))


def batch() -> Batch:
    draw = np.random.Generator(np.random.Philox(0))
    tokens, targets = draw.integers(0, 280, (2, 6, 8))
    targets[0, 1:], targets[3, :4] = IGNORE, IGNORE
    weights = draw.random((6, 8)).astype(np.float32)
    documents, rows = np.zeros((6, 8), np.int32), np.arange(6)
    return Batch(tokens, targets, weights, documents, rows, np.zeros((6, 8, 1), np.int64))


def gradients(micro: int) -> dict[str, torch.Tensor]:
    made = state()
    steps = Steps(
        find("objective.kinds", "next_token").NextToken(), Vocabulary(280), Policy(torch.float32, "cpu"),
        documents=False, clip=0.0, z_loss=0.01, micro_batch=micro, forward=made.model,
    )  # fmt: skip
    train_step(made, batch(), steps, 1.0)
    return {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_with_unequal_counts_are_one_batch(micro: int) -> None:
    whole, parts = gradients(6), gradients(micro)
    assert whole.keys() == parts.keys() and len(whole) == 21
    assert all(torch.allclose(parts[name], value, rtol=1e-11, atol=1e-13) for name, value in whole.items())


def test_clipping_scales_the_global_norm() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip(parameters, 0) == 5 and parameters[1].grad == 4
    assert clip(parameters, 1.0) == 5
    assert math.isclose(torch.cat([p.grad for p in parameters if p.grad is not None]).norm(), 1, rel_tol=1e-5)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = state()
    for step in (1, 2, 3):
        made.step = step
        save(made, tmp_path, "")
    assert [path.name for path in prune(tmp_path, 2)] == ["step-00000001"]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made.step = 4
    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="the disk is full"):
        patch.setattr(files.os, "fsync", full)
        save(made, tmp_path, "")
    found, damaged = newest(tmp_path)
    assert found is not None and found.name == "step-00000003" and not damaged
    assert (tmp_path / "latest").read_text() == "step-00000003\n"
    assert {p.name for p in tmp_path.iterdir()} == {"latest", "step-00000002", "step-00000003"}
    load(found, made)
    assert made.step == 3


def test_a_release_that_is_not_the_model_is_refused(tmp_path: Path) -> None:
    model, other = make(llama, CONFIG), make(llama, CONFIG)
    initialise(model, ROWS, 0.1, 0)
    initialise(other, ROWS, 0.1, 1)
    tokenizer, proof = train_tokenizer(["some text, and some more of it"] * 9, 260, reserved=4), torch.arange(20)

    def released(name: str, dtype: str, written: torch.nn.Module = model) -> float:
        def prove(partial: Path) -> float:
            return agree(model, load_folder(partial)[0], proof.view(2, 10), dtype, partial)

        return release(
            tmp_path / name, llama, CONFIG, lambda one: held(written, one), tokenizer, dtype=dtype, shard_bytes=10**9,
            card="# x\n", lineage={}, prove=prove,
        ).logit_difference  # fmt: skip

    assert released("a", "float32") <= 1e-6
    assert 1e-6 < released("b", "bfloat16") <= 3e-2
    with pytest.raises(UserError, match=r"logits differ .* nothing was released"):
        released("c", "float32", other)
    assert not (tmp_path / "c").exists()
