"""Ordeal and oracle: a run with each objective, from text to release; what both-sided models are asked, and refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.base.errors import UserError
from pretrain.cli.main import main
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Score
from pretrain.events.read import steps
from pretrain.recipe.read import load
from pretrain.run.open import open_model
from pretrain.run.stages import execute
from pretrain.watch.console import summary

MUTANTS = [
    ("src/pretrain/evaluate/held_out.py", "max(predicted, 1.0)", "1.0"),
    ("src/pretrain/model/folder.py", "{IS_CAUSAL: False}", "{IS_CAUSAL: True}"),
    (
        "src/pretrain/run/work.py",
        "rows = [*self.rows, *add_ahead(model, self.rows, self.objective.ahead)]",
        "rows = self.rows",
    ),
]
RECIPE = """
[run]
name = "small"
threads = 1
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
[corpus]
held_out = 0.2
[tokenizer]
vocab_size = 288
reserved = 16
[model]
use = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 32
[train]
steps = 12
batch = 512
sequence = 32
precision = "fp32"
checkpoint_every = 5
evaluate_every = 6
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


def run(recipe: Path, use: str, *more: str, **options: str) -> tuple[RunDirectory, list[Event]]:
    events: list[Event] = []
    said = load(str(recipe), [f"train.objective={use}", f"run.name={use}", *more])
    return RunDirectory(execute(said, subscribers=[events.append], **options)), events  # type: ignore[arg-type]


def loss_named(events: list[Event], name: str) -> list[float]:
    return [event.value for event in events if isinstance(event, Score) and event.name == name]


def test_a_masked_model_is_scored_by_its_objective_and_released_as_it_is(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    found, events = run(recipe, "masked")
    scores = loss_named(events, "loss, masked")
    assert len(scores) == 3 and scores[2] < scores[0] < 6 and not loss_named(events, "bits per byte")
    ours, _, _, tokenizer = open_model(found.path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found.release, dtype=torch.float32)
    ids = torch.tensor(tokenizer.encode("bal dor mit sun").tolist())[None]
    logits = ours.head(ours(ids, causal=False).hidden)  # type: ignore[operator]
    assert torch.allclose(theirs(ids).logits, logits, atol=1e-5)
    assert not torch.allclose(ours.logits(ids), logits, atol=1e-2)  # type: ignore[operator]
    card = (found.release / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "Objective: masked. Every token sees every other" in card

    said = summary(found.path)
    assert "evaluate runs/masked" in said and "sample" not in said.replace("samples", "")
    assert main(["evaluate", "runs/masked", "--data", "text/1.txt", "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["loss, masked"] < 6
    for command in (["sample", "runs/masked", "bal"], ["sample", "runs/masked/release", "bal"],
                    ["sample", str(next(found.checkpoints.glob("step-*"))), "bal"]):  # fmt: skip
        assert main(command) == 2 and "cannot continue a text" in capsys.readouterr().err
    assert main(["evaluate", "runs/masked/release", "--data", "text/1.txt"]) == 2
    assert "no likelihood of a text" in capsys.readouterr().err


def test_what_would_continue_a_text_is_refused_before_any_step(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"train\.sample_every: the objective diffusion teaches no model to continue"):
        run(recipe, "diffusion", "train.sample_every=3")
    with pytest.raises(UserError, match=r"evaluate\.tasks: .*; expected \[\]"):
        run(recipe, "masked", 'evaluate.tasks=[{use = "python_syntax"}]')
    with pytest.raises(UserError, match="no mask token"):
        run(recipe, "masked", "tokenizer.reserved=2", "tokenizer.vocab_size=274")
    assert not list((recipe.parent / "runs").glob("*/checkpoints/*"))


def test_a_run_that_looks_ahead_goes_on_and_releases_the_plain_model(recipe: Path) -> None:
    use = '{ use = "multi_token", ahead = 2 }'
    straight, _ = run(recipe, use, "run.name=straight", 'train.schedule={ use = "constant" }')
    run(recipe, use, "run.name=broken", 'train.schedule={ use = "constant" }', "train.steps=7", last="train")
    found, _ = run(recipe, use, "run.name=broken", 'train.schedule={ use = "constant" }')
    names = [load_file(sorted(one.checkpoints.glob("step-*"))[-1] / "model.safetensors") for one in (straight, found)]
    assert names[0].keys() == names[1].keys() and all(torch.equal(names[0][name], names[1][name]) for name in names[0])
    assert sum(name.startswith("ahead.") for name in names[0]) == 26
    optimizer = load_file(sorted(found.checkpoints.glob("step-*"))[-1] / "optimizer.safetensors")
    assert sum("ahead.1.block" in name for name in optimizer) == 18
    assert list(steps(found)[-1].losses) == ["next_token", "ahead_1", "ahead_2"]
    assert len(load_file(found.release / "model.safetensors")) == 12
    last = open_model(sorted(found.checkpoints.glob("step-*"))[-1])[0]
    assert torch.equal(last.get_parameter("embed.weight"), open_model(found.path)[0].get_parameter("embed.weight"))


@pytest.mark.parametrize("use", ["diffusion", '{ use = "fill_in_middle", rate = 1.0, sources = ["notes"] }'])
def test_the_others_run(recipe: Path, use: str) -> None:
    found, events = run(recipe, use, "run.name=small")
    losses = [one.loss for one in steps(found)]
    assert sum(losses[-3:]) < sum(losses[:3]) and found.release.is_dir()
    wanted = "loss, diffusion" if use == "diffusion" else "bits per byte"
    assert len(loss_named(events, wanted)) == 3


def test_settings_of_a_small_model_are_carried_over(recipe: Path) -> None:
    said = ["model.num_hidden_layers=2", "train.steps=3", "train.checkpoint_every=0"]
    plain, _ = run(recipe, "next_token", *said, "run.name=plain")
    found, _ = run(
        recipe,
        "next_token",
        *said,
        "run.name=carried",
        "train.tuned_on={hidden_size=16,num_attention_heads=1,intermediate_size=32,num_hidden_layers=1}",
    )
    sizes = [
        load_file(one.release / "model.safetensors")["model.layers.0.mlp.down_proj.weight"] for one in (plain, found)
    ]
    assert sizes[1].float().std() / sizes[0].float().std() == pytest.approx(8**-0.5, rel=0.1)
    with pytest.raises(UserError, match=r"train\.tuned_on: how settings of modules that look ahead"):
        run(recipe, "multi_token", *said, "train.tuned_on={num_hidden_layers=1}")


def test_a_family_that_looks_ahead_itself_learns_and_releases_its_module(recipe: Path) -> None:
    sizes = ["hidden_size=32", "intermediate_size=64", "moe_intermediate_size=16", "num_hidden_layers=2",
             "num_attention_heads=2", "kv_lora_rank=16", "qk_nope_head_dim=16", "qk_rope_head_dim=8", "v_head_dim=16",
             "n_routed_experts=8", "num_experts_per_tok=2", "n_group=2", "topk_group=1", "first_k_dense_replace=1",
             "num_nextn_predict_layers=1", "max_position_embeddings=32"]  # fmt: skip
    text = recipe.read_text()
    recipe.write_text(
        text.replace(text[text.index("[model]") : text.index("[train]")], '[model]\nuse = "deepseek_v3"\n')
    )
    said = [f"model.{size}" for size in sizes] + ["run.name=deep", "train.steps=4", "train.checkpoint_every=2"]
    with pytest.raises(UserError, match="1 modules that look ahead, and the objective would leave 1 untaught"):
        run(recipe, "next_token", *said)
    found, _ = run(recipe, "multi_token", *said)
    released = load_file(found.release / "model.safetensors")
    learned = load_file(sorted(found.checkpoints.glob("step-*"))[-1] / "model.safetensors")
    for file, name in {"eh_proj": "projection", "self_attn.kv_b_proj": "block.attention.kv_up"}.items():
        one, two = released[f"model.layers.2.{file}.weight"], learned[f"ahead.0.{name}.weight"]
        assert torch.equal(one.float(), two.to(one.dtype).float())
