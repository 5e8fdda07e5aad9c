"""Twin and oracle: a run goes out as a folder that transformers loads, the mean of checkpoints is the mean, and a run
goes on from a published folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain.base.errors import UserError
from pretrain.base.files import seal, verify
from pretrain.cli.main import main
from pretrain.events.directory import RunDirectory
from pretrain.model.folder import load_folder
from pretrain.model.tensor_files import Tensors
from pretrain.recipe.read import load
from pretrain.run.export import export
from pretrain.run.open import Checkpoint, checkpoint_of, open_model
from pretrain.run.published import completed
from pretrain.run.stages import execute
from pretrain.tokenizer.bpe import train
from pretrain.tokenizer.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")

MUTANTS = [
    ("src/pretrain/run/export.py", "total += one.weight(name)", "total += start"),
    ("src/pretrain/run/export.py", "(total / len(found))", "(total / 2)"),
    ("src/pretrain/run/export.py", "if one.tokenizer().digest != other.tokenizer().digest:", "if False:"),
    ("src/pretrain/run/model_stages.py", "agree(model, back,", "agree(model, model,"),
    ("src/pretrain/run/model_stages.py", 'return "" if before == wanted else', "return"),
    ("src/pretrain/run/published.py", "if key not in model:", "if True:"),
    ("src/pretrain/run/published.py", "_demand_fit(made, family, config)", "pass"),
    ("src/pretrain/recipe/layers.py", 'if path == "model." and "from" in over:', "if False:"),
]
RECIPE = """
[run]
name = "small"
threads = 1
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
[tokenizer]
vocab_size = 300
reserved = 8
[model]
use = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 32
[train]
steps = 6
batch = 128
sequence = 16
checkpoint_every = 2
keep = 9
evaluate_every = 0
sample_every = 0
precision = "fp32"
[evaluate]
baselines = false
"""
MORE = """
[run]
name = "more"
threads = 1
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
[model]
from = "{folder}"
[train]
steps = 2
batch = 128
sequence = 16
precision = "fp32"
evaluate_every = 0
sample_every = 0
"""


def texts() -> list[str]:
    draw = np.random.Generator(np.random.Philox(1))
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrs"]
    return [" ".join(draw.choice(words, 150)) + "\n" for _ in range(8)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    home = tmp_path_factory.mktemp("home")
    (home / "text").mkdir()
    for i, text in enumerate(texts()):
        (home / "text" / f"{i}.txt").write_text(text)
    (home / "small.toml").write_text(RECIPE)
    return RunDirectory(execute(load(str(home / "small.toml")), home / "runs" / "small", last="train"))


def test_a_checkpoint_is_the_folder_that_transformers_loads(run: RunDirectory, tmp_path: Path) -> None:
    done = export([run.path], tmp_path / "x", shard_bytes=9_000, proved=True)
    assert done.logit_difference <= 1e-6 and len(list((tmp_path / "x").glob("model-*"))) > 2
    verify(tmp_path / "x")
    model, _, _, tokenizer = open_model(run.path)
    tokens = torch.arange(20).view(2, 10)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x")
    assert torch.allclose(theirs(tokens).logits, model.logits(tokens), atol=1e-5)  # type: ignore[operator]
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")
    assert words("some more words").input_ids == tokenizer.encode("some more words").tolist()
    made = theirs.generate(tokens[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert made.shape[1] > 10


def test_what_is_not_the_checkpoint_is_not_released(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, small = Checkpoint.weight, load(str(run.path.parents[1] / "small.toml"))
    monkeypatch.setattr(Checkpoint, "weight", lambda self, name: weight(self, name) * 1.01)
    with pytest.raises(UserError, match=r"the written model's logits differ from the checkpoint's by .* released$"):
        execute(small, run.path)
    assert not run.release.exists()
    monkeypatch.undo()
    execute(small, run.path)
    ours, (theirs, _, _) = checkpoint_of(run.path).model(), load_folder(run.release)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    before = run.release.stat().st_ino
    execute(small, run.path)
    assert run.release.stat().st_ino == before, "nothing changed"


def test_the_card_tells_where_the_weights_are_from(run: RunDirectory) -> None:
    path = run.checkpoints / "step-00000004"
    done = Path(export([path], dtype="bfloat16").folder)
    assert done == run.exports / "step-00000004-bfloat16"
    lineage = json.loads((done / "lineage.json").read_bytes())
    stages = json.loads(run.stages.read_bytes())
    assert (lineage["steps"], lineage["tokens"]) == (4, 4 * 128)
    assert lineage["corpus"] == stages["train"]["key"]["tokens"]
    assert lineage["recipe"] == load(str(path / "recipe.toml")).digest
    card = (done / "README.md").read_text()
    assert "trained for 4 steps on 512 tokens: corpus `" in card and lineage["recipe"] in card
    assert "Energy: not measured." in card and "chat" not in card.lower() and "| notes | " in card
    assert all(tensor.dtype is torch.bfloat16 for tensor in Tensors(done).values())


def test_the_mean_is_the_mean(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [run.checkpoints / f"step-0000000{step}" for step in (2, 4, 6)]
    command = ["export", "--average", *map(str, paths), "--to", str(tmp_path / "mean"), "--prove"]
    assert main(command) == 0 and "written to" in capsys.readouterr().out
    found = [load_file(path / "model.safetensors") for path in paths]
    model, _, _ = load_folder(tmp_path / "mean")
    names = [name for name in found[0] if "head" not in name or "head.weight" in dict(model.named_parameters())]
    for name in names:
        expected = torch.stack([one[name].double() for one in found]).mean(0).float()
        assert torch.equal(model.get_parameter(name), expected)
        assert not torch.equal(expected, found[1][name])
    lineage = json.loads((tmp_path / "mean" / "lineage.json").read_bytes())
    assert lineage["made"] == "averaged" and [one["steps"] for one in lineage["of"]] == [2, 4, 6]
    assert "the mean of 3 checkpoints" in (tmp_path / "mean" / "README.md").read_text()


def test_what_has_no_mean_is_refused(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "runs" / "small"
    shutil.copytree(run.path, home)
    shutil.copytree(run.store, tmp_path / "store")
    other = home / "checkpoints" / "step-00000006"

    def says(old: str, new: str) -> None:
        (other / "recipe.toml").write_text((other / "recipe.toml").read_text().replace(old, new))
        seal(other)

    says("intermediate_size = 32", "intermediate_size = 24")
    with pytest.raises(UserError, match=r"step-00000006: intermediate_size 24, not 32; expected the model of \S*00002"):
        export([run.checkpoints / "step-00000002", other], tmp_path / "x")
    says("intermediate_size = 24", "intermediate_size = 32")
    name = json.loads(run.stages.read_bytes())["folders"]["tokenizer"]
    words = Tokenizer.load(tmp_path / "store" / name)
    changed = json.loads(words.text)
    changed["model"]["merges"] = changed["model"]["merges"][:-1]
    (tmp_path / "store" / name / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"step-00000006: its run has another tokenizer"):
        export([run.checkpoints / "step-00000002", other], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert main(["export", str(other), "--average", str(other), str(other)]) == 2
    assert main(["export", "--average", str(other)]) == 2
    assert main(["export", str(other), "--shard", "0"]) == 2
    capsys.readouterr()
    assert main(["export", str(tmp_path)]) == 2
    assert "no model here; expected a run directory or a checkpoint" in capsys.readouterr().err


def test_a_run_goes_on_from_a_folder_that_says_all(run: RunDirectory, tmp_path: Path) -> None:
    """[model] says `from` alone: architecture, weights and tokenizer are the folder's."""
    done = Path(export([run.path], tmp_path / "base").folder)
    (tmp_path / "more.toml").write_text(MORE.format(folder="base"))
    (tmp_path / "text").symlink_to(run.path.parents[1] / "text")
    recipe = load(str(tmp_path / "more.toml"))
    full = completed(recipe)
    assert full.origin("model.hidden_size").file == str(done / "config.json")
    assert full.model.family.bind() == open_model(done)[2] and full.tokenizer.from_ == str(done)
    found = RunDirectory(execute(recipe, tmp_path / "runs" / "more"))
    first = [json.loads(line) for path in found.events.glob("*") for line in path.read_text().splitlines()]
    start = next(event["loss"] for event in first if event["kind"] == "step")
    last = [json.loads(line) for path in run.events.glob("*") for line in path.read_text().splitlines()]
    assert start < next(event["loss"] for event in last if event["kind"] == "step")
    lineage = json.loads((found.release / "lineage.json").read_bytes())
    assert lineage["from"]["folder"] == "base" and lineage["from"]["lineage"]["steps"] == 6
    assert "  - from the weights of base, files `" in (found.release / "README.md").read_text()
    assert Tokenizer.load(found.release).digest == Tokenizer.load(done).digest
    execute(recipe, tmp_path / "runs" / "more")  # nothing changed
    shutil.rmtree(done)
    assert open_model(found.checkpoints / "step-00000002")[2].hidden_size == 16


WRONG = {
    "a size": ("hidden_size = 24", r"more\.toml:\d+: model\.from has hidden_size 16, not 24; expected the same, or th"),
    "a family": ('use = "qwen3"', r"more\.toml:\d+: model\.use = 'qwen3'; expected 'llama', which model\.from holds"),
    "a key": ("hidden_sise = 16", r"more\.toml:\d+: model\.hidden_sise: no such key; nearest: model\.hidden_size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_architecture_that_is_not_the_folders(run: RunDirectory, tmp_path: Path, name: str) -> None:
    export([run.path], tmp_path / "base")
    line, said = WRONG[name]
    (tmp_path / "more.toml").write_text(MORE.format(folder="base").replace("[train]", f"{line}\n[train]"))
    with pytest.raises(UserError, match=said):
        completed(load(str(tmp_path / "more.toml")))


def test_what_may_differ_and_what_lies_below(run: RunDirectory, tmp_path: Path) -> None:
    export([run.path], tmp_path / "base")
    (tmp_path / "base.toml").write_text(RECIPE.replace("hidden_size = 16", "hidden_size = 48"))
    (tmp_path / "more.toml").write_text(
        'extends = "base.toml"\n[model]\nfrom = "base"\nmax_position_embeddings = 24\n[tokenizer]\nfrom = "other"\n'
    )
    full = completed(load(str(tmp_path / "more.toml")))
    config = full.model.family.bind()
    assert (config.hidden_size, config.max_position_embeddings) == (16, 24)
    assert full.tokenizer.from_ == str(tmp_path / "other")


def test_a_vocabulary_that_does_not_fit_is_one_line(run: RunDirectory, tmp_path: Path) -> None:
    done = Path(export([run.path], tmp_path / "base").folder)
    (tmp_path / "text").symlink_to(run.path.parents[1] / "text")
    train(texts(), 310, reserved=8).save(tmp_path / "larger")
    (tmp_path / "more.toml").write_text(MORE.format(folder="base") + '[tokenizer]\nfrom = "larger"\n')
    said = rf"{done}/config\.json: model\.vocab_size = 300 is less than the tokenizer's 310 ids; expected at least"
    with pytest.raises(UserError, match=said):
        execute(load(str(tmp_path / "more.toml")), tmp_path / "runs" / "more", last="train")
    shutil.copytree(done, tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    (tmp_path / "more.toml").write_text(MORE.format(folder="mute"))
    with pytest.raises(UserError, match=r"mute: no tokenizer\.json"):
        execute(load(str(tmp_path / "more.toml")), tmp_path / "runs" / "more", last="train")
    save_file({}, tmp_path / "mute" / "model.safetensors")
    (tmp_path / "more.toml").write_text(MORE.format(folder="mute") + '[tokenizer]\nfrom = "base"\n')
    with pytest.raises(UserError, match=r"mute: tensor \S+ is missing"):
        execute(load(str(tmp_path / "more.toml")), tmp_path / "runs" / "more", last="train")
