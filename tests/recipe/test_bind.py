"""Property: what is wrong with an option of a leaf, or between sections, is said with its place before any work."""

import re
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.recipe.bind import bind_all
from pretrain.recipe.read import load
from pretrain.recipe.recipe import leaves

RECIPE = """\
[run]
name = "small"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["*.jsonl"]
[model]
hidden_size = 64
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
[train]
steps = 10
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


RANGES = {
    "model.hidden_size=-32": "model.hidden_size = -32 is out of range; expected at least 1",
    "model.num_hidden_layers=0": "model.num_hidden_layers = 0 is out of range; expected at least 1",
    "model.num_attention_heads=0": "model.num_attention_heads = 0 is out of range; expected at least 1",
    "model.rope_theta=-1.0": "model.rope_theta = -1.0 is out of range; expected at least 0",
    "model.rms_norm_eps=nan": "model.rms_norm_eps = nan is out of range; expected a finite number",
    "train.optimizer={lr=-1}": "train.optimizer.lr = -1.0 is out of range; expected at least 0",
    "train.optimizer={beta1=1.5}": "train.optimizer.beta1 = 1.5 is out of range; expected at least 0 and below 1",
    "train.optimizer={beta2=1}": "train.optimizer.beta2 = 1.0 is out of range; expected at least 0 and below 1",
    'train.optimizer={use="muon",iterations=0}': "train.optimizer.iterations = 0 is out of range; expected at least 1",
    'corpus.steps=[{use="minhash",bands=0}]': "corpus.steps.0.bands = 0 is out of range; expected at least 1",
    'corpus.steps=[{use="code",min_alphabetic=2}]': "min_alphabetic = 2.0 is out of range; expected 0 to 1",
    'evaluate.tasks=[{use="python_syntax",samples=0}]': "evaluate.tasks.0.samples = 0 is out of range; expected at le",
    "corpus.engine={processes=-3}": "corpus.engine.processes = -3 is out of range; expected at least 0",
}
NAMES = {
    "corpus.sources.web.wieght=2": r"corpus.sources.0.wieght: no such key; nearest: corpus.sources.0.weight$",
    "corpus.sources.web.txt='a'": r"corpus.sources.0.txt: no such key; nearest: corpus.sources.0.text$",
    "corpus.sources.web.zzz=2": r"expected one of text, url, date, language, license, read, name, paths, exclude",
    "corpus.sources.web.extract={structur=true}": r"extract.structur: .*nearest: corpus.sources.0.extract.structure",
    "train.optimizer={us='muon'}": r"train.optimizer.us: no such key; nearest: train.optimizer.use$",
    "model.rope_scaling={factr=1}": r"model.rope_scaling.factr: no such key; nearest: model.rope_scaling.factor",
    "train.tuned_on={hidden_sise=16}": r"train.tuned_on.hidden_sise: .*; nearest: train.tuned_on.hidden_size$",
    "train.tuned_on={hidden_size=17}": r"train.tuned_on: hidden_size 17 is no multiple of 2 heads",
    "model.fron='x'": r"model.fron: no such key; nearest: model.from$",
}


@pytest.mark.parametrize(("said", "message"), [*RANGES.items(), *NAMES.items()])
def test_a_wrong_option_of_a_leaf_is_said_with_its_place(recipe: Path, said: str, message: str) -> None:
    bind_all(load(str(recipe)))
    with pytest.raises(UserError) as caught:
        bind_all(load(str(recipe), [said]))
    assert re.search(f"^command line: .*{message}", str(caught.value), re.M), caught.value


def test_a_default_says_which_smaller_sizes_a_family_takes(recipe: Path) -> None:
    small = ["model.use=nimble", *(f"model.{name}=64" for name in ("hidden_size", "intermediate_size"))]
    small += ["model.num_hidden_layers=1", "model.num_attention_heads=2", "model.max_position_embeddings=1024"]
    text = RECIPE.partition("[model]")[0] + "[train]\nsteps = 10\n"
    recipe.write_text(text)
    bind_all(load(str(recipe), [*small, "model.gram_buckets=0"]))
    with pytest.raises(UserError, match="gram_buckets = -1 is out of range; expected at least 0"):
        bind_all(load(str(recipe), [*small, "model.gram_buckets=-1"]))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["model.max_position_embeddings=64", "train.sequence=128"], "train.sequence = 128 and model.max_position_emb"),
        (["model.vocab_size=300"], "model.vocab_size: 300 is less than the tokenizer's 32768 ids"),
        (["tokenizer.vocab_size=2000", "tokenizer.reserved=1800"], "1800 of vocab_size = 2000 .*expected at most 1744"),
        (["run.name=.."], "run.name: '..' is no folder name; expected a name without slashes that begins with no dot"),
        (["run.name=."], "run.name: '.' is no folder name"),
        (["corpus.sources.web.name=.."], "corpus.sources.0.name: '..' is no folder name"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(recipe: Path, said: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^command line: .*{message}"):
        bind_all(load(str(recipe), said))


def test_a_vocabulary_that_is_not_trained_to_a_size_bounds_none(recipe: Path) -> None:
    bind_all(load(str(recipe), ["model.vocab_size=300", "tokenizer.kind=characters"]))
    bind_all(load(str(recipe), ["model.vocab_size=300", "tokenizer.from=somewhere"]))


def test_all_mistakes_of_all_leaves_are_told_at_once(recipe: Path) -> None:
    recipe.write_text(RECIPE + 'optimizer = { lr = -1 }\n[[corpus.steps]]\nuse = "length"\nmax_lin = 3\n')
    with pytest.raises(UserError) as caught:
        bind_all(load(str(recipe), ["model.hidden_size=0"]))
    places = [str(one).partition(": ")[0].rpartition("/")[2] for one in caught.value.problems]
    assert places == ["small.toml:18", "command line", "small.toml:15"], caught.value


def test_every_leaf_knows_its_table(recipe: Path) -> None:
    tables = [leaf.key for leaf in leaves(load(str(recipe)))]
    assert tables == [
        *("corpus.sources.0", "corpus.sources.0.extract", "corpus.engine"),
        *("model", "train.objective", "train.optimizer"),
    ]
