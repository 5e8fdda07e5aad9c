"""Twin: a recut equals a rerun, document for document, where all was measured; a sample errs as it says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.cli.main import main
from pretrain.corpus.build import Build
from pretrain.corpus.cut import Cut
from pretrain.corpus.parts import Steps
from pretrain.corpus.recut import recut
from pretrain.corpus.sources import source_files
from pretrain.recipe.read import load

MUTANTS = [
    ("src/pretrain/corpus/recut.py", "(turn >= bound.most)", "(turn > bound.most)"),
    ("src/pretrain/corpus/recut.py", "holds &= ~(values > rule.at_most)", "holds &= ~(values >= rule.at_most)"),
    ("src/pretrain/corpus/recut.py", "& holds & ~hard", "& holds"),
    ("src/pretrain/corpus/recut.py", "mates = [] if everything else", "mates = [] if True else"),
]
NOTICE = "a notice that stands on many pages" * 6  # where it is alone, nothing is left
RECIPE = """
[run]
name = "x"
[corpus]
held_out = 0.1
measure = "{measure}"
sample = 0.2
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["*.jsonl"]
[[corpus.steps]]
use = "length"
min_characters = 150
[[corpus.steps]]
use = "lines"
[[corpus.steps]]
use = "exact"
keep = "longest"
[[corpus.steps]]
use = "gopher_quality"
min_words = 30
min_stop_words = 0
[[corpus.steps]]
use = "minhash"
[train]
steps = 1
batch = 64
sequence = 64
"""


def make(folder: Path, *overrides: str, measure: str = "all") -> tuple[Cut, Steps, object]:
    (folder / "x.toml").write_text(RECIPE.format(measure=measure))
    recipe = load(str(folder / "x.toml"), list(overrides))
    steps, cut = Steps(folder / "steps"), folder / "cut"
    shutil.rmtree(cut, ignore_errors=True)
    cut.mkdir()
    steps.root.mkdir(exist_ok=True)
    with find("corpus.engine", "local").Local(0).open(steps.root) as pool:
        files = {source.name: source_files(source) for source in recipe.corpus.sources}
        Build(recipe.corpus, 5, steps, pool, lambda said: None).run(files, cut)
    return Cut(cut), steps, recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    draw = np.random.Generator(np.random.Philox(1))
    for file in range(4):
        lines = []
        for i in range(150):
            words = np.random.Generator(np.random.Philox(i % 90)).integers(0, 400, int(draw.integers(10, 60)))
            text = " ".join(f"word{w}" for w in words) + (f"\n{NOTICE}" if i % 3 else "")
            lines.append(json.dumps({"text": text if i % 25 else NOTICE}))
        (folder / f"{file}.jsonl").write_text("\n".join([*lines, "{broken"]))
    return folder


def kept(cut: Cut) -> set[str]:
    return {row["id"] for row in cut.verdicts(["id", "split"]) if row["split"] != "dropped"}


@settings(max_examples=15, deadline=None)
@given(least=st.integers(50, 400), words=st.integers(5, 55), most=st.integers(56, 59), length=st.floats(3, 8))
def test_a_recut_is_a_rerun(corpus: Path, least: int, words: int, most: int, length: float) -> None:
    """Some documents have just as many words as are allowed."""
    change = [f"corpus.steps.0.min_characters={least}", f"corpus.steps.gopher_quality.min_words={words}"]
    change += [f"corpus.steps.gopher_quality.max_word_length={length}"]
    change += [f"corpus.steps.gopher_quality.max_words={most}"]
    (corpus / "x.toml").write_text(RECIPE.format(measure="all"))
    then, now = load(str(corpus / "x.toml"), change[1:]), load(str(corpus / "x.toml"))
    cut, steps, _ = make(corpus)
    before = kept(cut)
    said = recut(cut.folder, steps, now.corpus, then.corpus, 5, exact=True)
    assert said.kept == len(before) and not said.unknown
    rerun = kept(make(corpus, *change[1:])[0])
    assert said.ids == rerun
    assert (said.lost, said.gained) == (len(before - rerun), len(rerun - before))


def test_past_an_edit_a_bound_before_it_is_another_text(corpus: Path) -> None:
    """The lines that are taken out depend on the documents that the first step keeps."""
    cut, steps, now = make(corpus)
    then = load(str(corpus / "x.toml"), ["corpus.steps.0.min_characters=300"])
    with pytest.raises(UserError, match=r"corpus.steps.0 \(length\): lines, after it, .*starts at length"):
        recut(cut.folder, steps, now.corpus, then.corpus, 5, exact=True)  # type: ignore[attr-defined]


def test_a_sample_errs_as_it_says(corpus: Path) -> None:
    cut, steps, now = make(corpus, measure="until_dropped")
    then = load(str(corpus / "x.toml"), ["corpus.steps.gopher_quality.min_words=40"])
    said = recut(cut.folder, steps, now.corpus, then.corpus, 5, exact=False, small=0)  # type: ignore[attr-defined]
    whole = recut(cut.folder, steps, now.corpus, then.corpus, 5, exact=True)  # type: ignore[attr-defined]
    assert said.share == 0.2 and 60 <= said.documents <= 180 and whole.documents == 600
    lost = said.scaled(said.lost)
    assert lost.error > 0 and abs(lost.value - whole.lost) < 5 * lost.error
    assert said.kept == whole.kept and abs(said.kept_then.value - whole.kept_then.value) < 5 * said.kept_then.error
    loose = load(str(corpus / "x.toml"), ["corpus.steps.gopher_quality.min_words=5"])
    assert recut(cut.folder, steps, now.corpus, loose.corpus, 5, exact=True).unknown > 0  # type: ignore[attr-defined]
    before = kept(cut)
    rerun = kept(make(corpus, "corpus.steps.gopher_quality.min_words=40", measure="until_dropped")[0])
    assert (whole.lost, whole.gained) == (len(before - rerun), len(rerun - before))


def test_a_sample_knows_the_copies_of_what_it_holds(tmp_path: Path) -> None:
    """Every text stands four times: whether a sampled one stays hangs on copies that the sample does not hold."""
    words = [np.random.Generator(np.random.Philox(i)).integers(0, 400, 30 + i % 60) for i in range(300)]
    lines = [json.dumps({"text": " ".join(f"word{w}" for w in one)}) for one in words]
    (tmp_path / "a.jsonl").write_text("\n".join(lines * 4))
    copies, change = "corpus.steps.lines.most=9", "corpus.steps.gopher_quality.min_words=60"
    cut, steps, now = make(tmp_path, copies, measure="until_dropped")
    then = load(str(tmp_path / "x.toml"), [copies, change])
    said = recut(cut.folder, steps, now.corpus, then.corpus, 5, exact=False, small=0)  # type: ignore[attr-defined]
    rerun = kept(make(tmp_path, copies, change, measure="until_dropped")[0])
    lost, then_ = said.scaled(said.lost), said.kept_then
    assert said.kept == 300 and len(rerun) < 200
    assert abs(lost.value - (300 - len(rerun))) < 3 * lost.error and abs(then_.value - len(rerun)) < 3 * then_.error
    assert said.scaled(0).most == 15


def test_what_takes_a_rerun_is_said(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": "one two three four five six seven eight nine ten"}))
    step = f'[[corpus.steps]]\nuse = "decontaminate"\nagainst = ["{tmp_path}/quiz.jsonl"]\n'
    (corpus / "x.toml").write_text(RECIPE.format(measure="all") + step)
    recipe = str(corpus / "x.toml")
    assert main(["recut", recipe, "corpus.steps.minhash.bands=9"]) == 2
    assert "is not made yet; expected `pretrain run" in capsys.readouterr().err
    assert main(["run", recipe, "--to", "corpus"]) == 0
    for change, message in {
        "corpus.steps.minhash.bands=9": r"corpus.steps.4 (minhash): other copies are found",
        "corpus.steps.lines.most=3": r"corpus.steps.1 (lines): no bound changes",
        "corpus.held_out=0.5": "corpus.held_out is no bound",
        "corpus.steps.5.words=9 corpus.steps.5.max_items=2": "corpus.steps.5 (decontaminate): words is no bound",
        "corpus.steps.5.cut=true": "corpus.steps.5 (decontaminate): cut is no bound",
        "train.steps=7": "train has no part in a corpus",
    }.items():
        assert main(["recut", recipe, *change.split()]) == 2
        assert message in capsys.readouterr().err
    assert main(["recut", recipe, "corpus.steps.gopher_quality.min_words=45"]) == 0
    assert "from all documents" in capsys.readouterr().out
