"""Property: what a recipe says is what is read, and every slip of the pen is refused where it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.recipe.layers import shipped
from pretrain.recipe.read import load, override
from pretrain.recipe.recipe import leaves

RECIPE = """\
# a comment
[run]
name = "small"

[[corpus.sources]]
name = "web"
read = "text"
paths = [
  "web/**/*.txt",   # a value of several lines
  "more/*.txt",
]
[[corpus.sources]]
name = "books"
read = "jsonl"
paths = ["books.jsonl"]
weight = 3

[model]
use = "llama"
hidden_size = 64

[train]
optimizer = { use = "muon", lr = 0.02 }
schedule.warmup = 0.1
batch = "8Ki tokens"
sequence = 256
steps = 10
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def test_values_and_units_and_origins(recipe: Path) -> None:
    read = load(str(recipe))
    assert read.train.batch == 8192 and read.train.steps == 10 and read.train.schedule.warmup == 0.1
    assert read.train.optimizer.use == "muon" and read.train.optimizer.options == {"lr": 0.02}
    assert read.model.family.options == {"hidden_size": 64}
    assert read.corpus.sources[0].paths[1] == str(recipe.parent / "more/*.txt")
    lines = {"train.batch": 25, "corpus.sources.0.paths": 8, "corpus.sources.1.weight": 16, "train.optimizer.lr": 23}
    assert {key: read.origin(key).line for key in lines} == lines
    assert str(read.origin("train.clip")) == "default"


def test_overrides_and_extends(recipe: Path) -> None:
    child = recipe.parent / "child" / "child.toml"
    child.parent.mkdir()
    child.write_text('extends = "../small.toml"\n[train]\noptimizer = { use = "adamw" }\ntokens = "1M"\n')
    read = load(str(child), ["model.hidden_size=128", "corpus.sources.books.weight=5", "run.name=word"])
    assert read.train.optimizer.options == {}, "another optimizer's options are not its own"
    assert (read.train.steps, read.train.tokens) == (None, 1_000_000), "the nearer of two lengths stands"
    assert read.corpus.sources[1].weight == 5 and read.run.name == "word"
    assert str(read.origin("model.hidden_size")) == "command line"
    assert read.origin("train.tokens").line == 4 and read.origin("train.tokens").file.endswith("child.toml")
    assert read.corpus.sources[0].paths[0] == str(recipe.parent / "web/**/*.txt"), "paths stand beside who says them"
    again = override(read, "train.steps=3")
    assert (again.train.steps, again.train.tokens) == (3, None) and read.train.steps is None


def test_what_is_written_reads_back_equal(recipe: Path) -> None:
    read = load(str(recipe))
    (recipe.parent / "resolved.toml").write_text(read.to_toml())
    again = load(str(recipe.parent / "resolved.toml"))
    assert again == read and again.digest == read.digest and again.to_toml() == read.to_toml()
    assert load(str(recipe), ["train.clip=0.5"]).digest != read.digest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimzer = 1", r"small.toml:28: train.optimzer: no such key; nearest: train.optimizer$"),
        ('clip = "high"', r"small.toml:28: train.clip = 'high' is of the wrong type; expected a number$"),
        ("clip = -1", r"small.toml:28: train.clip = -1.0 is out of range; expected at least 0$"),
        ("clip = true", r"small.toml:28: train.clip = true is of the wrong type"),
        ("clip = nan", r"small.toml:28: train.clip = nan is out of range; expected a finite number$"),
        ("z_loss = inf", r"small.toml:28: train.z_loss = inf is out of range; expected a finite number$"),
        (
            "micro_batch = { a = 1 }",
            r"small.toml:28: train.micro_batch = a table is of the wrong type; expected a whole",
        ),
        ('precision = ["bf16"]', r"small.toml:28: train.precision = a list; expected 'auto'"),
        (
            '[[corpus.steps]]\nus = "length"',
            r"small.toml:29: corpus.steps.0.us: no such key; nearest: corpus.steps.0.use$",
        ),
        (
            "[[corpus.steps]]\nmin = 3",
            r"small.toml:28: corpus.steps.0.use is not said; expected a name from corpus.filters",
        ),
        (
            '[[corpus.sources]]\nname = "c"\nreed = "jsonl"',
            r"small.toml:30: corpus.sources.2.reed: no such key; nearest: corpus.sources.2.read$",
        ),
        ('[[corpus.source]]\nname = "c"', r"small.toml:28: corpus.source: no such key; nearest: corpus.sources$"),
        ('precision = "fp23"', r"small.toml:28: train.precision = 'fp23'; expected 'auto' or .*; nearest: fp32$"),
        ('z_loss = 0.1\ntokens = "1M"', r"small.toml:29: train.steps and train.tokens contradict each other"),
        ("micro_batch = 3", r"small.toml:28: train.micro_batch: 3 does not divide the 32 sequences"),
        (
            'objective = "next_tokn"',
            r"small.toml:28: train.objective: nothing called 'next_tokn';.*nearest: next_token",
        ),
        ("clip = 1\nclip = 2", r"small.toml:29: Cannot overwrite a value"),
        (
            'batch_ = "1"\nclipp = 2',
            r"(?s)small.toml:28: train.batch_.*small.toml:29: train.clipp: .*nearest: train.clip",
        ),
    ],
)
def test_a_mistake_is_said_where_it_stands(recipe: Path, line: str, message: str) -> None:
    recipe.write_text(f"{RECIPE}{line}\n")
    with pytest.raises(UserError) as caught:
        load(str(recipe))
    assert re.search(message, str(caught.value)), caught.value


def test_sections_are_held_against_each_other(recipe: Path) -> None:
    for change, message in {
        "train.batch=1000": "no whole sequences of 256; expected a multiple, such as 768",
        "tokens.row=300": "300 is no multiple of train.sequence = 256",
        "tokens.row=16384": "no whole rows",
        "run.name=a/b": "no folder name",
        "corpus.sources.books.name=web": "two sources are called 'web'",
        "corpus.sources.book.name=web": "has no element 'book'.*nearest: books",
        "corpus.sources.books.read=jsonll": "command line: corpus.sources.1: nothing called 'jsonll'; .*nearest: jsonl",
        "corpus.sources=[]": "no source is said",
        "train": "is no override",
        "parallel.schedule=zero_bubble": 'lose gradients of weights.*; expected "1f1b" or "interleaved"',
        "parallel.chunks=2": "one stage has no schedule; expected parallel.pp of 2 or more",
    }.items():
        with pytest.raises(UserError, match=message):
            load(str(recipe), [change])


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (
            "start = 0.5\nweights = { wbe = 1 }",
            r"small.toml:30: train.phases.0.weights.wbe: no such source; nearest: web$",
        ),
        (
            "start = 0.5\nweights = { web = -1 }",
            r"train.phases.0.weights.web: -1.0 is no weight; expected zero or more$",
        ),
        (
            "start = 0.5\nweights = { web = true }",
            r"train.phases.0.weights.web = true is of the wrong type; .*a number$",
        ),
        (
            "start = 0.5\nweights = { web = 0, books = 0 }",
            r"train.phases.0.weights: with it all weights are zero; expected at least one above zero$",
        ),
        (
            "start = 0.5\nover = 0.2\nweights = {}\n[[train.phases]]\nstart = 0.6\nweights = {}",
            r"small.toml:33: train.phases.1.start: 0.6 lies before 0.7, the end of what comes before",
        ),
        ("start = 0.9\nover = 0.2\nweights = {}", r"train.phases.0.over: 0.9 \+ 0.2 is past the end of the run"),
        ("start = 1.5\nweights = {}", r"train.phases.0.start = 1.5 is out of range; expected 0 to 1$"),
        ("weights = {}", r"train.phases.0.start is not said"),
    ],
)
def test_a_phase_that_cannot_be_is_said_where_it_stands(recipe: Path, phases: str, message: str) -> None:
    recipe.write_text(f"{RECIPE}[[train.phases]]\n{phases}\n")
    with pytest.raises(UserError) as caught:
        load(str(recipe))
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def test_phases_read_back_equal_and_weights_that_sum_to_nothing_are_refused(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.sources: all weights are zero; expected at least one above zero"):
        load(str(recipe), ["corpus.sources.web.weight=0", "corpus.sources.books.weight=0"])
    recipe.write_text(f"{RECIPE}[[train.phases]]\nstart = 0.5\nover = 0.25\nweights = {{ web = 0.2, books = 2 }}\n")
    read = load(str(recipe), ["corpus.sources.books.most_epochs=4", "train.mixture_temperature=3"])
    (recipe.parent / "again.toml").write_text(read.to_toml())
    assert load(str(recipe.parent / "again.toml")) == read
    assert read.train.phases[0].weights == {"web": 0.2, "books": 2.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("extends = 5", r"child.toml:2: extends is no name; expected a path, or a recipe that ships, in quotes$"),
        ('extends = ["small.toml"]', r"child.toml:2: extends is no name"),
        ('  extends = "smal.toml"', r"child.toml:2: no recipe smal.toml; .*nearest: small.toml$"),
        ('"extends" = "smal"', r"child.toml:2: no recipe smal; .*nearest: small.toml$"),
        ('extends = "./quikstart"', r"child.toml:2: no recipe ./quikstart; .*nearest: quickstart$"),
        ('extends = "small.toml"\n[[corpus.source]]\nname = "a"', r"child.toml:3: corpus.source: no such key"),
        ("", r"child.toml: run.name is not said; expected its folder under runs/$"),
        ("run = 5", r"child.toml:2: run = 5 is of the wrong type; expected a table$"),
        ("# caf\xe9", r"child.toml:2: byte 0xe9 is no UTF-8; expected text in UTF-8$"),
    ],
)
def test_what_a_recipe_lies_over_is_read_or_refused(recipe: Path, line: str, message: str) -> None:
    child = recipe.parent / "child.toml"
    child.write_bytes(f"# the child\n{line}\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load(str(child))
    assert re.search(message, str(caught.value)), caught.value


def test_an_indented_extends_is_one(recipe: Path) -> None:
    (recipe.parent / "child.toml").write_text('  extends = "small.toml"\n')
    assert load(str(recipe.parent / "child.toml")) == load(str(recipe))


def test_a_missing_recipe_names_the_file_beside_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    for name in ("smal.toml", "smal", "../" + recipe.parent.name + "/smll.toml"):
        with pytest.raises(UserError, match=rf"no recipe {re.escape(name)}; .*nearest: (\.\./.*/)?small.toml$"):
            load(name)


def test_what_the_command_line_says_is_known_as_such(recipe: Path) -> None:
    read = load(str(recipe), ['train.schedule={use="constant",warmup=0.1}', "corpus.sources.web.exclude=['a']"])
    said = ("train.schedule.use", "train.schedule.warmup", "corpus.sources.0.exclude")
    assert [str(read.origin(path)) for path in said] == ["command line"] * 3
    for several in (["train.steps=3", "train.tokens=5"], ["train={steps=3}", "train.clip=1", "train.seconds=5"]):
        with pytest.raises(UserError, match=r"command line: train.steps and train.* contradict each other"):
            load(str(recipe), several)
        with pytest.raises(UserError, match="contradict each other"):
            override(read, *several)


@pytest.mark.parametrize("word", ["nan", "true", "2024", "1e5", "2026-01-01", '"nan"'])
def test_a_bare_word_is_a_string_where_one_is_wanted(recipe: Path, word: str) -> None:
    assert load(str(recipe), [f"run.name={word}"]).run.name == word.strip('"')
    with pytest.raises(UserError, match="of the wrong type; expected a whole number"):
        load(str(recipe), [f"run.seed={word if word != '2024' else 'true'}"])
    recipe.write_text(RECIPE.replace('"small"', "2024"))
    with pytest.raises(UserError, match=r"small.toml:3: run.name = 2024 is of the wrong type; expected a string"):
        load(str(recipe))


def test_a_separator_of_lines_in_a_string_ends_no_line(recipe: Path) -> None:
    recipe.write_bytes(RECIPE.replace('"small"', '"a\u2028b"').replace("\n", "\r\n").encode())
    with pytest.raises(UserError, match=r"small.toml:3: run.name: .* is no folder name"):
        load(str(recipe))


def test_a_leaf_checks_its_options_when_bound(recipe: Path) -> None:
    optimizer = load(str(recipe)).train.optimizer.bind()
    assert optimizer.lr == 0.02
    recipe.write_text(RECIPE.replace("lr = 0.02", "lrr = 0.02"))
    with pytest.raises(
        UserError, match=r"small.toml:23: train.optimizer.lrr: no such key; nearest: train.optimizer.lr$"
    ):
        load(str(recipe)).train.optimizer.bind()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_every_dropped_letter_in_a_key_is_refused(recipe: Path, data: st.DataObject) -> None:
    lines = RECIPE.splitlines()
    keys = [
        i for i, line in enumerate(lines) if re.match(r"[a-z_.]{3,} =", line) and not line.startswith("hidden_size")
    ]
    i = data.draw(st.sampled_from(keys))
    name = lines[i].partition(" =")[0]
    at = data.draw(st.integers(0, len(name) - 1).filter(lambda at: name[at] != "."))
    wrong = name[:at] + name[at + 1 :]
    lines[i] = lines[i].replace(name, wrong, 1)
    path = recipe.parent / "wrong.toml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"wrong.toml:\d+"):
        for leaf in leaves(load(str(path))):
            leaf.bind()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_read_and_bind(name: str) -> None:
    for leaf in leaves(load(name)):
        leaf.bind(**({"vocab_size": 1000} if leaf.key == "model" and "vocab_size" not in leaf.options else {}))


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no recipe quikstart; .*nearest: quickstart"):
        load("quikstart")


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(UserError, match=r"b.toml:1: a.toml extends itself"):
        load(str(tmp_path / "a.toml"))


def test_reading_a_recipe_imports_no_torch() -> None:
    code = "import sys; from pretrain.recipe.read import load; load('quickstart'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
