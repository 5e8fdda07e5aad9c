"""Ordeal: what ranks save in parts is read bit for bit on any other layout, weights and optimizer."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from pretrain.base.extension import find
from pretrain.base.files import verify
from pretrain.checkpoint.pieces import Saved
from pretrain.checkpoint.save import layout_of, load, newest, save
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.state import State
from pretrain.model.folder import make
from pretrain.model.weights import expand, held, initialise, local
from pretrain.order.order import History, Segment
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import Layout
from ranks import ranks

MUTANTS = [
    ("src/pretrain/checkpoint/pieces.py", "out[_slices(low, high, wanted.start)]", "out[_slices(low, high, low)]"),
    (
        "src/pretrain/checkpoint/pieces.py",
        "zip(box.start, box.at, strict=True)",
        "zip(box.start, box.start, strict=True)",
    ),
    (
        "src/pretrain/checkpoint/save.py",
        "weight is not None and ranks.first_of(weight)",
        "weight is not None and ranks.leads",
    ),
    ("src/pretrain/parallel/pipeline.py", "if here(weight.name) or weight.name in shared]", "if here(weight.name)]"),
]
CONFIGS = {
    "gpt2": dict(vocab_size=44, n_embd=20, n_layer=2, n_head=4, n_positions=8),
    "mixtral": dict(vocab_size=44, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=2, num_local_experts=4),
}  # fmt: skip
# Of gpt2's last one both stages have the embedding, which is the head as well.
LAYOUTS = {
    "gpt2": [Layout(shard=4), Layout(shard=2, tp=2), Layout(replicate=2, shard=2), Layout(pp=2, tp=2)],
    "mixtral": [Layout(shard=4, ep=2), Layout(shard=2, tp=2, ep=2)],
}


def state(seed: int, on: Ranks, family: str = "gpt2") -> State:
    """A model whose optimizer has taken a step."""
    module = find("model.families", family)
    config = module.Config(**CONFIGS[family])
    rows, axes = module.weights(config), config.axes()
    model = make(module, config)
    initialise(model, rows, 0.3, seed)
    rows = on.apply(model, rows, axes)
    wholly = [] if on.alone else [on.wholly(rows, axes)]
    optimizer = find("optimizer.kinds", "muon").Muon().build(model, rows, *wholly)
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step(1.0)
    return State(model, rows, optimizer, seed, 8 * seed, History((Segment(0, {"a": 1.0}, {}),)), axes, on)


@ranks(4)
def saved_and_read(folder: Path, family: str) -> None:
    for number, layout in enumerate(LAYOUTS[family]):
        before = state(3, on := Ranks.of(layout, "cpu"), family)
        path = save(before, folder / str(number), "")
        verify(path)
        dist.barrier()
        others = [Ranks(), *(Ranks.of(one, "cpu") for one in LAYOUTS[family])]
        for other in others:
            after = state(4, other, family)
            load(path, after)
            assert (after.step, after.position) == (3, 24)
            same(after, path, family)
        same(before, path, family)
        assert on.layout == layout


def same(one: State, path: Path, family: str) -> None:
    """Every part that this rank holds is that part of the checkpoint's whole."""
    weights, moments = Saved(path, "model"), Saved(path, "optimizer")
    table = {weight.name: weight for weight in expand(one.rows) if weight.tied is None}
    module = find("model.families", family)
    every = expand(module.weights(module.Config(**CONFIGS[family])))
    assert sorted(weights.names()) == sorted(weight.name for weight in every if not weight.tied)
    assert {name for name, _ in one.model.named_parameters()} <= table.keys()
    found = {name: (weights, held(one.model, name)) for name in table}
    found |= {name: (moments, tensor) for name, tensor in one.optimizer.state().items()}
    assert {name for name in moments.names() if name.partition(".")[2] in {"", *table}} == set(one.optimizer.state())
    for name, (saved, tensor) in found.items():
        weight = table.get(name) or table.get(name.partition(".")[2])
        whole = saved.whole(name)
        if weight is None:
            assert torch.equal(tensor, whole)
            continue
        assert tuple(whole.shape) == weight.shape(one.axes)
        for box in one.ranks.boxes(weight, one.axes):
            assert torch.equal(box.of_own(local(tensor)).detach(), box.of_whole(whole)), name


@pytest.mark.parametrize("family", LAYOUTS)
def test_any_layout_reads_what_another_saved(tmp_path: Path, family: str) -> None:
    saved_and_read(tmp_path, family)


def moved(folder: Path, name: str, layout: Layout) -> None:
    """Goes on from the newest checkpoint of `folder` on another layout, and saves to `folder/name` behind its back."""
    one = state(5, on := Ranks.of(layout, "cpu"))
    found, damaged = newest(folder, on)
    assert found is not None and not damaged
    load(found, one)
    with Saver(folder / name, "", 2, lambda event: None, on) as saver:
        saver.save(one, wait=False)
        for tensor in (*one.model.parameters(), *one.optimizer.state().values()):
            local(tensor.detach()).zero_()  # training goes on
        saver.wait()
    assert sorted(path.name for path in (folder / name).iterdir()) == ["latest", "step-00000003"]
    assert layout_of(folder / name / "step-00000003") == str(layout)


@ranks(4)
def on_four(folder: Path) -> None:
    moved(folder, "four", Layout(shard=4))


@ranks(2)
def on_two(folder: Path) -> None:
    moved(folder / "four", "two", Layout(tp=2))


@ranks(8)
def on_eight(folder: Path) -> None:
    moved(folder / "four" / "two", "eight", Layout(replicate=2, tp=4))


def test_four_ranks_then_two_then_eight_and_every_bit_is_there(tmp_path: Path) -> None:
    alone = save(state(3, Ranks()), tmp_path, "")
    on_four(tmp_path)
    on_two(tmp_path)
    on_eight(tmp_path)
    for kind in ("model", "optimizer"):
        truth = load_file(alone / f"{kind}.safetensors")  # whole tensors, by the format's own library
        for path in tmp_path.rglob("step-00000003"):
            saved = Saved(path, kind)
            assert set(saved.names()) == set(truth) and verify(path)
            assert all(torch.equal(saved.whole(name), tensor) for name, tensor in truth.items()), path
    assert len(list(tmp_path.rglob("step-00000003"))) == 4
