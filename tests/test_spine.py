"""Ordeal: raw text to a released checkpoint on a recipe of seconds; killed, damaged, resumed; nothing done twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from pretrain.base.errors import UserError
from pretrain.cli.main import main
from pretrain.corpus.cut import Cut
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Changed, Event, Fault, Mixture, Notice, Pruned, Released, Saved, Score, Stage
from pretrain.events.read import all_of, steps
from pretrain.order.batch import Data
from pretrain.order.order import History, Order, Segment
from pretrain.order.pack import Rows
from pretrain.recipe.read import load
from pretrain.run.open import open_model
from pretrain.run.stages import execute
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.trace.trace import trace_step
from pretrain.train.machine import compiler_answer

MUTANTS = [
    ("src/pretrain/train/loop.py", "state.position + rows", "state.position"),
    ("src/pretrain/optimizer/fused.py", '"step": state["steps"]', '"step": 0 * state["steps"]'),
    ("src/pretrain/checkpoint/save.py", "state.optimizer.load(", "dict("),
    ("src/pretrain/run/work.py", "if name not in now and", "if name in now and"),
    ("src/pretrain/order/phases.py", "dry = set(gone)", "dry = set[str]()"),
]
RECIPE = """
[run]
name = "small"
seed = 3
threads = 1
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
weight = 2
[[corpus.sources]]
name = "lines"
read = "jsonl"
paths = ["more.jsonl"]
[corpus]
held_out = 0.2
[tokenizer]
vocab_size = 320
reserved = 16
[model]
use = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 32
[train]
optimizer = { use = "muon", lr = 0.02 }
steps = 24
batch = 1024
sequence = 32
checkpoint_every = 3
sample_every = 10
evaluate_every = 10
precision = "fp32"
[evaluate]
sample_tokens = 8
[[evaluate.tasks]]
use = "python_syntax"
samples = 2
tokens = 8
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    draw = np.random.Generator(np.random.Philox(1))
    vocabulary = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrs"]
    texts = [" ".join(draw.choice(vocabulary, 150)) + "\n" for _ in range(24)]
    (tmp_path / "text").mkdir()
    for i, text in enumerate(texts[:16]):
        (tmp_path / "text" / f"{i}.txt").write_text(text)
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[16:]))
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path / "small.toml"


def run(recipe: Path, *overrides: str, **options: object) -> tuple[RunDirectory, list[Event]]:
    events: list[Event] = []
    directory = recipe.parent / "runs" / "small"
    execute(load(str(recipe), overrides), directory, subscribers=[events.append], **options)  # type: ignore[arg-type]
    return RunDirectory(directory), events


def result(run: RunDirectory) -> tuple[dict[str, torch.Tensor], list[tuple[int, int, float]]]:
    """Final weights and optimizer state, and (step, position, loss) of every step."""
    last = sorted(run.checkpoints.glob("step-*"))[-1]
    tensors = {f"{file.stem} {name}": t for file in last.glob("*.safetensors") for name, t in load_file(file).items()}
    return tensors, [(one.step, one.position, one.loss) for one in steps(run)]


def assert_equal_to_straight(recipe: Path, found: RunDirectory) -> None:
    """Bit for bit what a run that never stopped ends with."""
    other = recipe.parent / "straight"
    if not other.exists():
        execute(load(str(recipe)), other / "runs" / "small", last="train")
    (one, losses), (two, others) = result(found), result(RunDirectory(other / "runs" / "small"))
    rows = sum(len(Rows(path, 32)) for path in (recipe.parent / "store").glob("tokens-*"))
    assert losses[-1][1] > 2 * rows, "the run ends in a third epoch"
    assert losses == others and len(losses) == 24
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_from_text_to_a_model_that_transformers_loads(recipe: Path) -> None:
    found, _ = run(recipe)
    scores = {score.name: score.value for score in all_of(found, Score)}
    assert scores["bits per byte"] < scores["bits per byte, unigram baseline"] + 1
    assert scores.keys() >= {"bits per byte", "perplexity", "bits per byte, xz -9 baseline", "functions that parse"}
    assert (all_of(found, Released)[0]).logit_difference <= 1e-6
    (said,) = [one.text for one in all_of(found, Notice) if one.text.startswith("lines: ")]
    assert re.fullmatch(
        r"lines: \d documents? to train on \([\d.]+ KiB\), \d documents? held out \([\d.]+ (KiB|B)\)", said
    )
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert {p.name for p in found.release.iterdir()} == {*names, "README.md", "lineage.json", "manifest.json"}
    assert {p.name for p in found.path.iterdir()} == {
        *("recipe.toml", "origins.json", "versions.json", "stages.json", "events", "checkpoints", "release")
    }

    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found.release)
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.release)
    ours, _, _, mine = open_model(found.path)
    ids = tokenizer("bal cam don\n", return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == mine.encode("bal cam don\n").tolist()
    here, there = ours.logits(ids), theirs(ids).logits  # type: ignore[operator]
    assert (here - there).abs().max() <= 1e-5 * there.abs().max()
    checkpoint = sorted(found.checkpoints.glob("step-*"))[-1]
    assert torch.equal(open_model(checkpoint)[0].logits(ids), here)  # type: ignore[operator]

    _, again = run(recipe)
    assert {event.state for event in again if isinstance(event, Stage)} == {"reused"}
    execute(load(str(found.path)), found.path, subscribers=[again.append])
    assert {event.state for event in again if isinstance(event, Stage)} == {"reused"}, "its own recipe means the same"
    _, changed = run(recipe, "release.dtype=bfloat16")
    ran = [event.name for event in changed if isinstance(event, Stage) and event.state == "started"]
    assert ran == ["release"]
    (recipe.parent / "text" / "0.txt").write_text("another text altogether, about nothing in particular")
    _, dry = run(recipe, dry=True)
    would = {event.name: event.why for event in dry if isinstance(event, Stage) and event.state == "skipped"}
    assert "sources.notes.files.text/0.txt" in would["corpus"] and "lines" not in would["corpus"]
    with pytest.raises(UserError, match=r"begun with other settings.*run\.name=small-2 for a run of its own"):
        run(recipe, "run.seed=4", last="train")


@pytest.mark.parametrize("moments", [(0.35, 0.6), (0.2, 0.45, 0.5)])
def test_killed_at_any_moment_it_ends_where_it_would_have(recipe: Path, moments: tuple[float, ...]) -> None:
    run(recipe, last="tokens")
    command = [sys.executable, "-m", "pretrain", "run", str(recipe), "--to", "train"]
    log = recipe.parent / "runs" / "small" / "events" / "rank-00000.jsonl"
    for moment in moments:
        process = subprocess.Popen(command, cwd=recipe.parent, stdout=subprocess.DEVNULL)
        want = int(24 * moment)
        while process.poll() is None and '"kind":"step","time":' not in _tail(log, want):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
    subprocess.run(command, cwd=recipe.parent, check=True, stdout=subprocess.DEVNULL)
    assert_equal_to_straight(recipe, RunDirectory(recipe.parent / "runs" / "small"))


def _tail(log: Path, step: int) -> str:
    text = log.read_text() if log.exists() else ""
    return text if f'"step":{step},' in text else ""


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(recipe: Path) -> None:
    found, _ = run(recipe, last="train")
    newest = sorted(found.checkpoints.glob("step-*"))[-1]
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    _, events = run(recipe, last="train")
    told = [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert len(told) == 1 and f"{newest.name}/model.safetensors" in told[0]
    assert_equal_to_straight(recipe, found)


def test_what_is_saved_after_the_only_one_was_damaged_stays(recipe: Path) -> None:
    found, _ = run(recipe, last="train")
    *old, last = sorted(found.checkpoints.glob("step-*"))
    for folder in (*old, last):
        (folder / "state.json").write_text("")
    with pytest.raises(UserError, match=f"all {len(old) + 1} checkpoints are damaged: .*state.json.* all moved away"):
        run(recipe, last="train")
    for folder in old:
        shutil.rmtree(folder)
    _, events = run(recipe, "train.keep=1", "train.checkpoint_every=2", last="train")
    saved = [event.step for event in events if isinstance(event, Saved)]
    gone = [
        event.step
        for event in events
        if isinstance(event, Pruned) and f"damaged-step-{event.step:08d}" not in event.folder
    ]
    assert saved[-1] not in gone and gone == saved[:-1]
    assert_equal_to_straight(recipe, found)
    assert not list(found.checkpoints.glob("damaged-*"))


def test_why_a_run_stopped_is_in_its_log(recipe: Path) -> None:
    with pytest.raises(UserError):
        run(recipe, "model.vocab_size=3", "tokenizer.kind=characters")  # whose size is known once it is made
    found = RunDirectory(recipe.parent / "runs" / "small")
    assert "model.vocab_size = 3 is less" in all_of(found, Fault)[-1].text


def test_the_first_half_needs_no_torch(recipe: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pretrain.recipe.read import load\nfrom pretrain.run.stages import execute\n"
        "execute(load(sys.argv[1]), sys.argv[2], last='tokens')"
    )
    subprocess.run([sys.executable, "-c", code, str(recipe), str(recipe.parent / "runs" / "small")], check=True)


def test_training_lowers_the_loss_to_what_the_text_holds(recipe: Path) -> None:
    found, _ = run(recipe, "train.steps=60", last="train")
    losses = [one.loss for one in steps(found)]
    assert losses[-1] < 0.75 * losses[0] and all(np.isfinite(losses))


def test_a_run_goes_on_with_more_steps_another_batch_and_another_mixture(recipe: Path) -> None:
    """Shares hold from the change on, and each source goes on where it stood: no row twice in an epoch."""
    found, _ = run(recipe, "train.steps=7", last="train")
    texts = (
        "a source that comes late, and is short",
        "quite another text, of seven words more",
        "and a third one, so there",
    )
    (recipe.parent / "new.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    late = recipe.read_text().replace("weight = 2\n", "weight = 1\n")
    late += '[[corpus.sources]]\nname = "anew"\nread = "jsonl"\npaths = ["new.jsonl"]\nweight = 2\n'
    recipe.write_text(late.replace("held_out = 0.2", "held_out = 0.0").replace("steps = 24", "steps = 12"))
    with pytest.raises(UserError, match=r"begun with other settings; changed: tokens\.lines, tokens\.notes; expected"):
        run(recipe, last="train")
    recipe.write_text(late.replace("steps = 24", "steps = 12"))
    _, events = run(recipe, "train.batch=2048", last="train")
    (changed,) = [event for event in events if isinstance(event, Changed)]
    assert changed.step == 7 and changed.position == 7 * 32 and "train.batch 1024 -> 2048" in changed.what
    assert [(one.step, one.position, one.rows) for one in steps(found)][6:8] == [(7, 192, 32), (8, 224, 64)]
    _, again = run(recipe, "train.batch=2048", last="train")
    assert {event.state for event in again if isinstance(event, Stage)} == {"reused"}

    folders = json.loads(found.stages.read_bytes())["folders"]
    sizes = {
        name: len(Rows(recipe.parent / "store" / folders[f"tokens/{name}"], 32)) for name in ("notes", "lines", "anew")
    }
    last = json.loads((sorted(found.checkpoints.glob("step-*"))[-1] / "state.json").read_bytes())
    order = Order(3, sizes, History.from_json(last["history"]))
    source, epoch, row = order.at(np.arange(last["position"]))
    names = np.array(order.sources)[source]
    before, after = names[: 7 * 32], names[7 * 32 :]
    assert abs((before == "notes").sum() - 224 * 2 / 3) < 30 and "anew" not in before
    assert abs((after == "anew").sum() - 320 * 2 / 4) < 60 and abs((after == "notes").sum() - 320 / 4) < 60
    for name in sizes:
        seen = list(zip(epoch[names == name], row[names == name], strict=True))
        assert len(set(seen)) == len(seen) and seen == sorted(seen, key=lambda one: one[0])

    whole = recipe.read_text()
    recipe.write_text(whole.replace('name = "lines"', 'name = "others"'))
    _, events = run(recipe, "train.steps=14", "train.batch=2048", last="train")
    (changed,) = [event for event in events if isinstance(event, Changed)]
    assert "sources.lines" in changed.what and "sources.others" in changed.what
    seen = trace_step(found.path, 3)
    recipe.write_text(whole.replace('paths = ["more.jsonl"]', 'paths = ["new.jsonl"]').replace("anew", "other"))
    with pytest.raises(UserError, match=r"source 'lines' had other documents .*; expected another name for it"):
        run(recipe, "train.steps=16", "train.batch=2048", last="train")
    assert trace_step(found.path, 3) == seen
    recipe.write_text(whole.replace('name = "lines"', 'name = "others"'))
    with pytest.raises(UserError, match="stands at step 14 already, past the 14 asked for"):
        run(recipe, "train.steps=14", "train.clip=0.5", "train.batch=2048", last="train")
    _, dry = run(recipe, "train.steps=20", "train.batch=2048", dry=True)
    assert [event.why for event in dry if isinstance(event, Stage) and event.name == "train"] == [
        "it goes on from its checkpoint; changed: train.steps 14 -> 20"
    ]


def test_files_that_come_to_a_source_in_mid_run_are_a_stratum_of_it(recipe: Path) -> None:
    """What the run has begun to learn from keeps its shards and its order; nothing is learned twice or lost."""
    found, _ = run(recipe, "train.steps=7", last="train")
    before = json.loads(found.stages.read_bytes())["folders"]

    def come(name: str) -> None:
        for number in range(4):
            words = " ".join(f"{name}{number}{i % 29} of {i}" for i in range(150))
            (recipe.parent / "text" / f"{name}{number}.txt").write_text(words)

    come("late")
    _, events = run(recipe, "train.steps=14", last="train")
    (changed,) = [event for event in events if isinstance(event, Changed)]
    assert changed.step == 7 and "tokens.notes/1" in changed.what and "tokens.notes " not in changed.what
    folders = json.loads(found.stages.read_bytes())["folders"]
    assert {name: folders[name] for name in before if name.startswith("tok")} == {
        name: folder for name, folder in before.items() if name.startswith("tok")
    }
    store = recipe.parent / "store"
    ids = [
        {identity for entry in Catalogue.load(path).shards for identity in Shard(path / entry.name).ids}
        for path in (store / folders["tokens/notes"], store / folders["tokens/notes/1"])
    ]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == {
        document.id for document in Cut(store / folders["corpus"]).documents("train", "notes")
    }
    rows = {name: len(Rows(store / folders[f"tokens/{name}"], 32)) for name in ("notes", "notes/1", "lines")}
    last = json.loads((sorted(found.checkpoints.glob("step-*"))[-1] / "state.json").read_bytes())
    order = Order(3, rows, History.from_json(last["history"]))
    visits = np.stack(order.at(np.arange(14 * 32)), 1)
    assert len(np.unique(visits, axis=0)) == len(visits)
    first = Order(3, {name: rows[name] for name in ("notes", "lines")}, History(order.history.segments[:1]))
    assert np.array_equal(first.at(np.arange(7 * 32))[2], visits[: 7 * 32, 2]), "the past is as it was"
    whole = order.history.segments[-1].weights
    assert whole["notes"] + whole["notes/1"] == pytest.approx(2) and whole["notes"] * rows["notes/1"] == pytest.approx(
        whole["notes/1"] * rows["notes"]
    )
    _, again = run(recipe, "train.steps=14", last="train")
    assert {event.state for event in again if isinstance(event, Stage)} == {"reused"}
    come("later")
    run(recipe, "train.steps=16", last="train")
    grown = json.loads(found.stages.read_bytes())["folders"]
    assert "tokens/notes/2" in grown
    aside = recipe.parent / "aside"
    aside.mkdir()
    for path in [*recipe.parent.glob("text/later1.txt"), *recipe.parent.glob("text/late1.txt")]:
        path.rename(aside / path.name)
    with pytest.raises(UserError, match=r"begun with other settings; changed: tokens\.notes"):
        run(recipe, "train.steps=18", last="train")
    (aside / "late1.txt").rename(recipe.parent / "text" / "late1.txt")
    for path in recipe.parent.glob("text/later*.txt"):
        path.unlink()
    _, events = run(recipe, "train.steps=18", last="train")
    (changed,) = [event for event in events if isinstance(event, Changed)]
    assert "tokens.notes/2" in changed.what and "tokens.notes/1" not in changed.what
    assert {row.source for row in trace_step(found.path, 18)} == {"notes", "notes/1", "lines"}
    assert "notes/2" in {row.source for step in (15, 16) for row in trace_step(found.path, step)}, "as it was"


PHASES = """
[[train.phases]]
start = 0.25
over = 0.7
weights = { lines = 8 }
"""


def test_phases_and_caps_are_foretold_and_a_resumed_run_keeps_them(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on in the middle of a linear change sees what one that never stopped saw, bit for bit."""
    capped = recipe.read_text().replace('paths = ["more.jsonl"]\n', 'paths = ["more.jsonl"]\nmost_epochs = 4\n')
    recipe.write_text(capped.replace("[evaluate]", f"{PHASES}[evaluate]"))
    run(recipe, last="tokens")
    monkeypatch.chdir(recipe.parent)
    _, dry = run(recipe, dry=True)
    assert main(["check", "small.toml"]) == 0
    assert "\n# lines runs dry: from step " in (said := capsys.readouterr().out.replace("#   ", "# ")), said
    assert main(["check", "small.toml", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["mixture"]
    found, events = run(recipe, "train.keep=9", last="train")
    (foretold,) = [event for event in dry if isinstance(event, Mixture)]
    (told,) = [event for event in events if isinstance(event, Mixture)]
    assert (told.starts, told.epochs, told.dry) == (foretold.starts, foretold.epochs, foretold.dry)
    assert checked == {"starts": told.starts, "epochs": told.epochs, "dry": told.dry}
    assert main(["check", "small.toml", "train.keep=9"]) == 0 and "trained to its end" in capsys.readouterr().out
    assert main(["check", "small.toml", "train.steps=20"]) == 2
    assert "stands at step 24 already, past the 20 asked for" in capsys.readouterr().err
    assert told.starts == [1, 7] and sum(told.epochs["lines"]) == pytest.approx(4) and 7 < told.dry["lines"] < 24
    weights, losses = result(found)
    for folder in sorted(found.checkpoints.glob("step-*"))[4:]:
        shutil.rmtree(folder)
    _, events = run(recipe, "train.keep=9", last="train")
    assert not [event for event in events if isinstance(event, (Changed, Mixture))]
    again, others = result(found)
    assert losses == others and all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_longer_run_equals_one_that_was_planned_so_where_the_rate_is_constant(recipe: Path) -> None:
    constant = 'train.schedule={use = "constant", warmup = 0.0}'
    found, _ = run(recipe, "train.steps=9", constant, last="train")
    run(recipe, constant, last="train")
    other = recipe.parent / "planned" / "runs" / "small"
    execute(load(str(recipe), [constant]), other, last="train")
    (one, losses), (two, others) = result(found), result(RunDirectory(other))
    assert losses == others and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_steps_learn_the_same(recipe: Path) -> None:
    if not compiler_answer()[0]:
        pytest.skip("no C++ compiler here")
    plain, _ = run(recipe, "train.steps=4", last="train")
    losses = [one.loss for one in steps(plain)]
    found = recipe.parent / "compiled" / "runs" / "small"
    execute(load(str(recipe), ["train.steps=4", "train.compile=always"]), found, last="train")
    assert [one.loss for one in steps(RunDirectory(found))] == pytest.approx(losses, rel=1e-4)


def test_a_run_starts_from_a_released_folder(recipe: Path) -> None:
    """The first loss is the released model's on the first batch, and its tokenizer is taken over as it is."""
    before, _ = run(recipe, "train.steps=6")
    other = recipe.parent / "other" / "runs" / "more"
    taken = [f"model.from={before.release}", f"tokenizer.from={before.release}", "train.steps=2", "run.seed=9"]
    execute(load(str(recipe), taken), other, last="train")
    model, _, _, tokenizer = open_model(before.release)
    folders = json.loads((other / "stages.json").read_bytes())["folders"]
    store = recipe.parent / "other" / "store"
    assert Tokenizer.load(store / folders["tokenizer"]).digest == tokenizer.digest
    rows = {name: Rows(store / folders[f"tokens/{name}"], 32) for name in ("notes", "lines")}
    order = Order(
        9, {name: len(one) for name, one in rows.items()}, History((Segment(0, {"notes": 2, "lines": 1}, {}),))
    )
    tokens = torch.from_numpy(Data(order, rows, 32).batch(0, 32).tokens)
    logits = model.logits(tokens)[:, :-1]  # type: ignore[operator]
    expected = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert steps(RunDirectory(other))[0].loss == pytest.approx(expected.item(), rel=1e-3)
    with pytest.raises(UserError, match=r"model\.from.*hidden_size 32, not 64"):
        execute(load(str(recipe), [*taken, "model.hidden_size=64", "run.name=x"]), other.with_name("x"), last="train")
    longer = ["model.vocab_size=320", "model.max_position_embeddings=64", "run.name=longer", "train.steps=1",
              'model.rope_scaling={rope_type="yarn",factor=2.0,original_max_position_embeddings=32}']  # fmt: skip
    execute(load(str(recipe), [*taken, *longer]), other.with_name("longer"), last="train")
    assert steps(RunDirectory(other.with_name("longer")))[0].loss == pytest.approx(expected.item(), rel=0.05)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        execute(load(str(recipe), ["tokenizer.from=nowhere"]), other.with_name("y"), last="train")
