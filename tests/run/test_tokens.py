"""Ordeal: tokens are the same whoever makes them and however often he is killed; those of others are used in place."""

import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.corpus import tokenize as module
from pretrain.corpus.cut import Cut
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Notice, Stage
from pretrain.events.read import steps
from pretrain.order.pack import Rows
from pretrain.recipe.read import load
from pretrain.run.stages import execute
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/corpus/tokenize.py", "all((self.folder / entry.name).exists() for", "any(True for"),
    ("src/pretrain/corpus/tokenize.py", 'if row["split"] == "train"', "if True"),
    ("src/pretrain/run/tokens.py", "found.tokenizer != tokenizer.digest", "False"),
    ("src/pretrain/run/tokens.py", "if entry.largest >= tokenizer.vocab_size:", "if False:"),
]
RECIPE = """
[run]
name = "small"
threads = 1
[corpus]
held_out = 0.1
engine = { use = "local", processes = 0 }
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["text/*.txt"]
[tokenizer]
vocab_size = 300
reserved = 16
[model]
use = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 32
[train]
steps = 4
batch = 256
sequence = 32
checkpoint_every = 0
precision = "fp32"
[evaluate]
baselines = false
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = np.random.Generator(np.random.Philox(1))
    (tmp_path / "text").mkdir()
    for i in range(40):
        words = draw.choice([f"{a}{b}" for a in "bcdfg" for b in "aeiou"], draw.integers(1, 150))
        (tmp_path / "text" / f"{i}.txt").write_text(f"{i} {' '.join(words)}\n")
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "small.toml"


def run(recipe: Path, *overrides: str, name: str = "small", last: str = "tokens") -> list[Event]:
    events: list[Event] = []
    execute(load(str(recipe), overrides), recipe.parent / "runs" / name, last=last, subscribers=[events.append])
    return events


def tokens_of(folder: Path) -> Path:
    (found,) = (folder / "store").glob("tokens-*")
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut in many files, so that there are units to share out."""
    monkeypatch.setattr("pretrain.corpus.build.KEPT_BYTES", 1200)


def test_shards_hold_the_cut_in_its_order(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(monkeypatch)
    run(recipe)
    store = recipe.parent / "store"
    cut, tokenizer = Cut(next(store.glob("corpus-*"))), Tokenizer.load(next(store.glob("tokenizer-*")))
    catalogue = Catalogue.load(tokens_of(recipe.parent))
    found = []
    for entry in catalogue.shards:
        shard = Shard(catalogue.folder / entry.name)
        shard.verify()
        pairs = zip(shard.bounds[:-1], shard.bounds[1:], strict=True)
        found += [(shard.id(i), shard.tokens[a:b].tolist()) for i, (a, b) in enumerate(pairs)]
    expected = [(one.id, [*tokenizer.encode(one.text).tolist(), tokenizer.end]) for one in cut.documents("train")]
    assert found == expected and len(catalogue.shards) > 5
    assert (catalogue.tokenizer, catalogue.vocab_size) == (tokenizer.digest, tokenizer.vocab_size)
    assert Tokenizer.load(catalogue.folder).digest == tokenizer.digest


def test_the_number_of_workers_changes_no_byte(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(monkeypatch)
    run(recipe)
    one = content(tokens_of(recipe.parent))
    for path in [tokens_of(recipe.parent), recipe.parent / "store" / "steps" / "tokens"]:
        subprocess.run(["rm", "-r", str(path)], check=True)
    run(recipe, "corpus.engine.processes=3", name="other")
    assert content(tokens_of(recipe.parent)) == one and len(one) > 8


def test_what_was_finished_is_not_done_again(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the fifth unit, the next run makes it and those after it, and ends with the same bytes."""
    small_files(monkeypatch)
    run(recipe, last="tokenizer")
    code = (
        "import os, signal, sys\n"
        "from pretrain.corpus import tokenize\nfrom pretrain.recipe.read import load\n"
        "from pretrain.run.stages import execute\nmake, made = tokenize.make_unit, []\n"
        "def dies(*arguments):\n"
        "    if len(made) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    made.append(make(*arguments))\n"
        "tokenize.make_unit = dies\n"
        "execute(load(sys.argv[1]), sys.argv[2], last='tokens')"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(recipe), str(recipe.parent / "runs" / "small")])
    assert killed.returncode == -signal.SIGKILL
    units = sorted((recipe.parent / "store" / "steps" / "tokens").iterdir())
    before = {unit: (unit / "catalogue.json").stat().st_mtime_ns for unit in units}
    assert len(before) == 4 and not list((recipe.parent / "store").glob("tokens-*"))
    spoilt = units[0] / next(name for name in content(units[0]) if name.endswith(".shard"))
    spoilt.unlink()
    run(recipe)
    after = {unit: (unit / "catalogue.json").stat().st_mtime_ns for unit in units}
    assert [unit for unit in units if before[unit] != after[unit]] == [units[0]]
    found = content(tokens_of(recipe.parent))
    straight = recipe.parent / "straight"
    execute(load(str(recipe)), straight / "runs" / "small", last="tokens")
    assert content(tokens_of(straight)) == found


def test_what_fills_no_row_is_named_by_its_source(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"tokens of the source 'notes' \(.*\): \d+ tokens fill no row of 32768; exp"):
        run(recipe, "tokens.row=32768", "train.batch=32768", "train.steps=1")


def test_a_unit_that_cannot_be_made_is_named(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(module, "make_unit", fails)
    with pytest.raises(UserError, match=r"kept/notes/00000\.parquet.*: tokenizing failed three times: .*no luck"):
        run(recipe)


@pytest.mark.parametrize("packing", ["padding_free", "best_fit"])
def test_packed_rows_are_trained_on_and_their_waste_is_said(recipe: Path, packing: str) -> None:
    options = [f"tokens.packing={packing}", "train.mask=documents", "train.steps=12", "train.optimizer.lr=0.02"]
    said = [one.text for one in run(recipe, *options, last="train") if isinstance(one, Notice)]
    (line,) = [text for text in said if text.startswith("tokens/notes: ")]
    rows = Rows(tokens_of(recipe.parent), 32, packing)
    assert line.startswith(f"tokens/notes: {len(rows)} {packing} rows of 32 tokens, ")
    assert f"{rows.padding:.2%} padding" in line if packing == "best_fit" else "no padding" in line
    assert f"{rows.dropped_tokens} tokens dropped" in line
    losses = [one.loss for one in steps(RunDirectory(recipe.parent / "runs" / "small"))]
    assert len(losses) == 12 and losses[-1] < losses[0] - 0.2
    with pytest.raises(UserError, match=rf'train\.mask: "causal" looks across the documents of {packing} rows'):
        load(str(recipe), [f"tokens.packing={packing}"])


def test_sequences_warm_up_and_go_on_bit_for_bit(recipe: Path) -> None:
    warm = ["train.sequence_warmup={ start = 8, tokens = 512 }", "train.checkpoint_every=1"]
    short = run(recipe, *warm, "train.steps=1", 'train.schedule={ use = "constant" }', last="train")
    whole = run(recipe, *warm, 'train.schedule={ use = "constant" }', last="train")
    said = "the run ends in its warm-up, before it learns from sequences of 32 tokens"
    assert [any(getattr(one, "text", "") == said for one in events) for events in (short, whole)] == [True, False]
    first = [one.loss for one in steps(RunDirectory(recipe.parent / "runs" / "small"))]
    run(recipe, *warm, 'train.schedule={ use = "constant" }', name="straight", last="train")
    assert [one.loss for one in steps(RunDirectory(recipe.parent / "runs" / "straight"))] == first and len(first) == 4
    with pytest.raises(UserError, match=r"sequence_warmup\.start: 12 never doubles to 32; expected such as 16"):
        load(str(recipe), ["train.sequence_warmup={ start = 12, tokens = 512 }"])


def existing(folder: Path, place: str, *more: str) -> Path:
    """A recipe that starts from tokens which are there."""
    text = RECIPE[: RECIPE.index("[[corpus")] + RECIPE[RECIPE.index("[model]") :]
    (folder / "existing.toml").write_text(f'{text}\n[tokens]\nfrom = "{place}"\n' + "\n".join(more))
    return folder / "existing.toml"


def test_a_run_starts_from_shards_that_are_there_here_or_in_a_store(recipe: Path) -> None:
    """Same tokens, same losses: made here, taken from a folder, from a URL, or from a folder of such folders."""
    run(recipe, last="train")
    expected = [one.loss for one in steps(RunDirectory(recipe.parent / "runs" / "small"))]
    made = tokens_of(recipe.parent)
    memory = fsspec.filesystem("memory")
    for name, data in content(made).items():
        memory.pipe_file(f"/{recipe.parent.name}/notes/{name}", data)
        (recipe.parent / "all" / "notes").mkdir(parents=True, exist_ok=True)
        (recipe.parent / "all" / "notes" / name).write_bytes(data)
    places = (str(recipe.parent / "all"), f"memory://{recipe.parent.name}", f"memory://{recipe.parent.name}/notes")
    for number, place in enumerate(places):
        other = recipe.parent / f"other-{number}"
        other.mkdir()
        events: list[Event] = []
        execute(load(str(existing(other, place))), other / "runs" / "a", last="train", subscribers=[events.append])
        assert [one.loss for one in steps(RunDirectory(other / "runs" / "a"))] == expected
        assert len(list((other / "store" / "cache").glob("*.shard"))) == (number > 0)
        again: list[Event] = []
        execute(load(str(other / "existing.toml")), other / "runs" / "a", last="train", subscribers=[again.append])
        assert {one.state for one in again if isinstance(one, Stage)} == {"reused"}
    execute(load(str(other / "existing.toml")), other / "runs" / "a")
    assert (other / "runs" / "a" / "release" / "model.safetensors").exists(), "and it is released"


def test_a_run_starts_from_other_trainers_files(recipe: Path) -> None:
    """A flat file of the shards' tokens is learned from like the shards; one of another dtype is refused."""
    run(recipe, last="train")
    expected = [one.loss for one in steps(RunDirectory(recipe.parent / "runs" / "small"))]
    made = Catalogue.load(tokens_of(recipe.parent))
    other = recipe.parent / "flat" / "notes"
    other.mkdir(parents=True)
    Shard(made.folder / made.shards[0].name).tokens.tofile(other / "train.bin")
    recipe_too = existing(other.parent, str(other))
    with pytest.raises(UserError, match=r"tokenizer of these shards is not beside them; expected tokenizer\.from"):
        execute(load(str(recipe_too)), other.parent / "runs" / "a", last="train")
    given, even = f"tokenizer.from={made.folder}", recipe.parent / "even" / "notes"
    even.mkdir(parents=True)
    Shard(made.folder / made.shards[0].name).tokens[:64].tofile(even / "train.bin")
    wide = load(str(existing(even.parent, str(even))), [given, "tokens.dtype=uint32"])
    with pytest.raises(UserError, match=r"train\.bin: token id \d+ is outside the vocabulary; expected 0 to 299"):
        execute(wide, even.parent / "runs" / "b", last="train")
    execute(load(str(recipe_too), [given]), other.parent / "runs" / "a", last="train")
    assert [one.loss for one in steps(RunDirectory(other.parent / "runs" / "a"))] == expected
    (other / "val.bin").write_bytes((other / "train.bin").read_bytes())
    with pytest.raises(UserError, match=r'val\.bin lies beside train\.bin.*; expected tokens\.from = ".*/train\.bin"'):
        execute(load(str(recipe_too), [given]), other.parent / "runs" / "c", last="tokens")
    alone = [given, f"tokens.from={other / 'train.bin'}"]
    execute(load(str(recipe_too), alone), other.parent / "runs" / "d", last="train")
    assert [one.loss for one in steps(RunDirectory(other.parent / "runs" / "d"))] == expected, "a file by itself"
    with pytest.raises(
        UserError, match=r"train\.bin: holds .* bytes; expected a whole number of 4-byte"
    ):  # it is read anew
        execute(load(str(recipe_too), [*alone, "tokens.dtype=uint32"]), other.parent / "runs" / "e", last="tokens")


def test_tokens_that_do_not_go_together_are_refused_before_the_first_step(recipe: Path) -> None:
    run(recipe)
    made, both = tokens_of(recipe.parent), recipe.parent / "both"
    other = recipe.parent / "other"
    execute(load(str(recipe), ["tokenizer.vocab_size=290"]), other / "runs" / "small", last="tokens")
    for name, folder in (("a", made), ("b", tokens_of(other))):
        (both / name).mkdir(parents=True)
        for file, data in content(folder).items():
            (both / name / file).write_bytes(data)
    away = recipe.parent / "away"
    away.mkdir()
    with pytest.raises(UserError, match=r"source 'b' \(.*\): made by another tokenizer \(\w{12}, 290 ids\); expected"):
        execute(load(str(existing(away, str(both)))), away / "runs" / "a", last="train")
    gone = both / "a" / Catalogue.load(made).shards[-1].name
    gone.rename(recipe.parent / "aside")
    with pytest.raises(UserError, match=rf"{gone.name}: the shard is gone; expected a file of its catalogue"):
        execute(load(str(existing(away, str(both / "a")))), away / "runs" / "z", last="train")
    (recipe.parent / "aside").rename(gone)
    text = (made / "catalogue.json").read_text()
    largest = Catalogue.load(made).shards[0].largest
    (both / "a" / "catalogue.json").write_text(text.replace(f'"largest": {largest}', '"largest": 300'))
    with pytest.raises(UserError, match=r"token id 300 in \w+\.shard is outside the vocabulary; expected 0 to 299"):
        execute(load(str(existing(away, str(both / "a")))), away / "runs" / "b", last="train")
    with pytest.raises(UserError, match=r"no token shards; expected a folder with catalogue\.json or \.bin files"):
        execute(load(str(existing(away, str(away)))), away / "runs" / "c", last="train")


def test_inspect_shows_shards(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pretrain.cli.main import main

    run(recipe)
    made = Catalogue.load(tokens_of(recipe.parent))
    assert main(["inspect", str(made.folder), "--verify"]) == 0
    shown = capsys.readouterr().out
    first = Shard(made.folder / made.shards[0].name)
    tokenizer = Tokenizer.load(made.folder)
    for text in (
        f"{len(made.shards)} shards of ",
        f"{made.tokens:,} tokens, {made.documents} documents, uint16",
        f"300 ids in the vocabulary, the largest in use {made.shards[0].largest}, document end {made.end}",
        f"tokenizer {tokenizer.digest}",
        f"{first.id(0)}  {first.bounds[1]} tokens: {tokenizer.decode(first.tokens[: min(48, first.bounds[1])])!r}",
        f"{made.shards[0].name}: all {made.shards[0].tokens:,} tokens are as they were written",
    ):
        assert text in shown, text
    path = made.folder / made.shards[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x77")
    assert main(["inspect", str(made.folder), "--verify"]) == 2
    assert "differ from their check" in capsys.readouterr().err
    path.write_bytes(whole)
    folder = recipe.parent / "flat"
    folder.mkdir()
    first.tokens.tofile(folder / "train.bin")
    assert main(["inspect", str(folder)]) == 0
    flat = f"train.bin: flat, {len(first.tokens):,} tokens if they are of uint16"
    assert flat in capsys.readouterr().out
    assert main(["inspect", str(folder / "train.bin")]) == 0 and flat in capsys.readouterr().out
    made.folder.rename(recipe.parent / "whole")
    (recipe.parent / "all").mkdir()
    for name in ("whole", "flat"):
        (recipe.parent / name).rename(recipe.parent / "all" / name)
    assert main(["inspect", str(recipe.parent / "all")]) == 0
    shown = capsys.readouterr().out
    assert flat in shown and f"{made.tokens:,} tokens, {made.documents} documents" in shown and "all/whole\n" in shown
