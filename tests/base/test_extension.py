"""Closed form: leaves are found by file name, by dotted path, or refused with the nearest name."""

import sys
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find, leaf, names
from pretrain.base.optional import extra


def test_the_folder_is_the_list() -> None:
    folder = Path(sys.modules["pretrain"].__file__ or "").parent / "corpus" / "read"
    assert names("corpus.read") == sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    assert find("corpus.read", "text").__name__ == "pretrain.corpus.read.text"


def test_every_shipped_leaf_has_one_dataclass_of_options() -> None:
    kinds = ["corpus.read", "corpus.filters", "corpus.dedup", "model.families", "objective.kinds", "optimizer.kinds"]
    for kind in [*kinds, "evaluate.tasks"]:
        for name in names(kind):
            assert (leaf(kind, name).__doc__ or "").strip(), f"{kind}.{name} says nothing of itself"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no corpus.read called 'txt'.*nearest: text"):
        find("corpus.read", "txt")


def test_a_users_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_here").mkdir()
    (tmp_path / "mine_here" / "reader.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Reader:\n    width: int = 3\n"
    )
    (tmp_path / "mine_here" / "broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert leaf("corpus.read", "mine_here.reader")().width == 3
    with pytest.raises(UserError, match=r"no module mine_here\.redaer"):
        find("corpus.read", "mine_here.redaer")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        find("corpus.read", "mine_here.broken")


def test_a_missing_dependency_names_its_extra() -> None:
    assert extra("json", "any").loads("1") == 1
    with pytest.raises(UserError, match=r"not_there is not installed; expected pip install 'pretrain\[media\]'"):
        extra("not_there.inside", "media")
