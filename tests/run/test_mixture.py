"""Twin: the outlook of a run against counting its rows; a history is kept until the recipe asks for another."""

from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.order.order import History, Order
from pretrain.recipe.read import load
from pretrain.recipe.recipe import Recipe
from pretrain.run.mixture import first_history, outlook

MUTANTS = [
    ("src/pretrain/run/mixture.py", "(round(share * total) - step) * rows", "round(share * total) * rows"),
    ("src/pretrain/run/mixture.py", "(place - position) // rows + 1 if place", "(place - position) // rows if place"),
    ("src/pretrain/run/mixture.py", "!= asked", "== asked"),
    ("src/pretrain/run/mixture.py", "weight / fill.get(name, 1.0)", "weight"),
    ("src/pretrain/run/mixture.py", "segment.consumed.get(name, 0) >= count", "segment.consumed.get(name, 0) > count"),
]
RECIPE = """
[run]
name = "small"
[train]
batch = 1024
sequence = 64
steps = 100
[[train.phases]]
start = 0.25
over = 0.25
weights = { books = 1.0 }
[[train.phases]]
start = 0.9
weights = { web = 0.0, code = 5.0 }
[[corpus.sources]]
name = "web"
read = "text"
paths = ["*.txt"]
weight = 3
[[corpus.sources]]
name = "books"
read = "text"
paths = ["*.txt"]
weight = 0
most_epochs = 2.5
[[corpus.sources]]
name = "code"
read = "text"
paths = ["*.txt"]
"""
ROWS = {"web": 900, "books": 50, "code": 333}
WEIGHTS = {"web": 3.0, "books": 0.0, "code": 1.0}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "small.toml").write_text(RECIPE)
    return load(str(tmp_path / "small.toml"))


def begun(recipe: Recipe) -> Order:
    return Order(7, ROWS, first_history(recipe.train, WEIGHTS, {}, ROWS))


def test_what_is_foretold_is_what_is_counted(recipe: Recipe) -> None:
    history, told = outlook(recipe, WEIGHTS, {}, begun(recipe), 0, 0, 100)
    order = Order(7, ROWS, history)
    source = order.at(np.arange(1600))[0]
    assert told.starts == [1, 26, 91]
    for i, name in enumerate(order.sources):
        counts = [int((source[low:high] == i).sum()) for low, high in ((0, 400), (400, 1440), (1440, 1600))]
        assert told.epochs[name] == pytest.approx([count / ROWS[name] for count in counts])
    books = np.flatnonzero(source == order.sources.index("books"))
    assert len(books) == 125 and told.dry == {"books": int(books[-1] + 1) // 16 + 1}
    after = source[books[-1] + 1 : 1440]
    assert (after == order.sources.index("web")).mean() == pytest.approx(0.75, abs=0.06), "in proportion"


@pytest.mark.parametrize("step", [3, 30, 44, 70, 95])
def test_a_resumed_run_keeps_the_history_and_another_one_goes_on_from_there(recipe: Recipe, step: int) -> None:
    planned, _ = outlook(recipe, WEIGHTS, {}, begun(recipe), 0, 0, 100)
    stored = Order(7, ROWS, History.from_json(planned.to_json()))
    kept, _ = outlook(recipe, WEIGHTS, {}, stored, step, 16 * step, 100)
    assert kept.to_json() == planned.to_json()
    changed, told = outlook(recipe, {**WEIGHTS, "web": 9.0}, {}, stored, step, 16 * step, 130)
    before, now = stored.at(np.arange(1600)), Order(7, ROWS, changed).at(np.arange(2080))
    assert all(np.array_equal(one[: 16 * step], other[: 16 * step]) for one, other in zip(before, now, strict=True))
    assert len(np.unique(np.stack(now, 1), axis=0)) == 2080, "no row twice in an epoch"
    assert sum(told.epochs["books"]) <= 2.5 and changed.segments[-1].weights["web"] == 0.0


def test_another_batch_moves_what_is_to_come(recipe: Recipe, tmp_path: Path) -> None:
    planned, _ = outlook(recipe, WEIGHTS, {}, begun(recipe), 0, 0, 100)
    double = load(str(tmp_path / "small.toml"), ["train.batch=2048"])
    moved, told = outlook(double, WEIGHTS, {}, Order(7, ROWS, planned), 60, 960, 100)
    assert told.starts == [1, 91] and moved.segments[-1].position == 960 + 30 * 32
    again, _ = outlook(double, WEIGHTS, {}, Order(7, ROWS, moved), 80, 960 + 20 * 32, 100)
    assert again == moved


def test_a_mixture_that_never_changes_is_never_laid_out_anew(tmp_path: Path) -> None:
    """A checkpoint from before there were phases goes on as it did."""
    plain = RECIPE[: RECIPE.index("[[train.phases]]")] + RECIPE[RECIPE.index("[[corpus.sources]]") :]
    (tmp_path / "plain.toml").write_text(plain.replace("most_epochs = 2.5\n", ""))
    recipe = load(str(tmp_path / "plain.toml"))
    old = History.from_json([{"position": 0, "weights": WEIGHTS, "consumed": {}, "recipe": "of old"}])
    assert outlook(recipe, WEIGHTS, {}, Order(7, ROWS, old), 40, 640, 500)[0] == old


def test_weights_are_shares_of_tokens_where_rows_hold_padding(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(RECIPE)
    recipe = load(str(tmp_path / "plain.toml"), ["train.phases=[]"])
    fill = {"web": 0.5, "books": 1.0, "code": 0.75}
    history = first_history(recipe.train, {"web": 1.0, "books": 1.0, "code": 3.0}, fill, ROWS)
    given = Order(7, ROWS, history).consumed(3 * 4096)
    assert [given[name] * fill[name] for name in ROWS] == pytest.approx([12288 / 7, 12288 / 7, 3 * 12288 / 7], abs=1)
    with pytest.raises(UserError, match=r"train.phases: no such source as 'web'.*nearest: wet"):
        first_history(load(str(tmp_path / "plain.toml")).train, {"wet": 1.0, "books": 1.0, "code": 1.0}, {}, ROWS)
