"""Ordeal and oracle: a mixture learns from text, in balance, goes on bit for bit, and is what transformers reads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Plan
from pretrain.events.read import steps
from pretrain.recipe.read import load
from pretrain.run.open import open_model
from pretrain.run.stages import execute
from pretrain.watch.console import step_line

MUTANTS = [
    ("src/pretrain/run/work.py", "balance=section.balance,", ""),
    ("src/pretrain/watch/console.py", "max(step.expert_load)", "min(step.expert_load)"),
]
RECIPE = """
extends = "qwen3_moe_10m"
[run]
name = "mixture"
threads = 1
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
[corpus]
steps = []
held_out = 0.1
[tokenizer]
vocab_size = 288
reserved = 16
[model]
hidden_size = 32
intermediate_size = 64
moe_intermediate_size = 16
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
num_experts = 8
max_position_embeddings = 32
[train]
steps = 12
batch = 512
sequence = 32
precision = "fp32"
checkpoint_every = 5
schedule = { use = "constant" }
[evaluate]
baselines = false
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    words = ["bal", "dor", "mit", "sun", "ked", "lop"]
    for i in range(40):
        lines = [" ".join(words[(i + j + k) % 6] for k in range(9)) for j in range(3 + i % 9)]
        (tmp_path / "text" / f"{i}.txt").write_text("\n".join(lines) + f"\n{i}")
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path / "small.toml"


def run(recipe: Path, *more: str, **options: str) -> tuple[RunDirectory, list[Event]]:
    events: list[Event] = []
    return RunDirectory(execute(load(str(recipe), list(more)), subscribers=[events.append], **options)), events  # type: ignore[arg-type]


def test_a_mixture_learns_goes_on_and_is_read_by_transformers(recipe: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    straight, events = run(recipe)
    taken = steps(straight)
    assert sum(one.loss for one in taken[-3:]) < sum(one.loss for one in taken[:3])
    for one in taken:
        assert len(one.expert_load) == len(one.experts_dead) == len(one.router_entropy) == 2
        assert min(one.expert_load) >= 1 and max(one.expert_load) <= 4 and one.tokens_dropped == 0
    assert f"busiest expert {max(taken[-1].expert_load):.1f}x the mean" in step_line(taken[-1], None)
    plan = next(event for event in events if isinstance(event, Plan))
    assert plan.parameters - plan.active_parameters == 2 * (8 - 2) * 3 * 16 * 32

    run(recipe, "run.name=broken", "train.steps=7", last="train")
    found, _ = run(recipe, "run.name=broken")
    one, two = (
        load_file(sorted(side.checkpoints.glob("step-*"))[-1] / "model.safetensors") for side in (straight, found)
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)

    skewed, _ = run(recipe, "run.name=skewed", "train.balance.loss=1.0", last="train")
    assert max(steps(skewed)[-1].expert_load) < max(taken[-1].expert_load)

    ours, _, _, tokenizer = open_model(found.path)
    ids = torch.tensor(tokenizer.encode("bal dor mit sun").tolist())[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found.release, dtype=torch.float32)
    assert torch.allclose(theirs(ids).logits, ours.logits(ids), atol=1e-5)  # type: ignore[operator]
