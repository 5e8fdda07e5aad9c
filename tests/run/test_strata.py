"""Twin: a stratum against set arithmetic on documents; what makes another run is no growth."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.corpus.cut import KEPT, Cut
from pretrain.run.store import KEY
from pretrain.run.strata import learned, make_stratum, strata

MUTANTS = [
    ("src/pretrain/run/strata.py", "one[0] <= order", "one[0] < order"),
    ("src/pretrain/run/strata.py", 'row["split"] == "train" and not there', "not there"),
    ("src/pretrain/run/strata.py", 'if there and row["split"] == "held_out"', "if there"),
    ("src/pretrain/run/strata.py", "if not came or", "if"),
    ("src/pretrain/run/strata.py", "if lost or", "if"),
    ("src/pretrain/run/strata.py", "[:i])", "[:])"),
]
documents = st.dictionaries(st.integers(0, 60), st.sampled_from(["train", "train", "held_out"]), max_size=40)


def cut_of(folder: Path, splits: dict[int, str], key: dict) -> Cut:
    """A cut of documents by number, three of which share each place in the order; in files of five."""
    (folder / "kept" / "web").mkdir(parents=True)
    rows = [
        {name: None for name in KEPT.names}
        | {"id": f"{n:032x}", "text": f"text {n}", "content": f"c{n}", "split": splits[n], "order": n // 3, "place": n}
        for n in sorted(splits)
    ]
    for i in range(0, max(len(rows), 1), 5):
        pa.parquet.write_table(pa.Table.from_pylist(rows[i : i + 5], KEPT), folder / f"kept/web/{i:05}.parquet")
    counts = {
        s: {"documents": list(splits.values()).count(s), "digest": f"{s} {splits}"} for s in ("train", "held_out")
    }
    (folder / "summary.json").write_text(json.dumps({"web": counts}))
    (folder / KEY).write_text(json.dumps({"name": "corpus", "key": key}))
    return Cut(folder)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=documents, second=documents, third=documents)
def test_a_stratum_is_what_no_earlier_cut_trained_on(
    tmp_path_factory: pytest.TempPathFactory, first: dict[int, str], second: dict[int, str], third: dict[int, str]
) -> None:
    root = tmp_path_factory.mktemp("cuts")
    cuts = [cut_of(root / str(i), splits, {}) for i, splits in enumerate((first, second, third))]
    make_stratum(cuts[2], "web", cuts[:2], root / "new")
    known = {n for splits in (first, second) for n, split in splits.items() if split == "train"}
    mine = [n for n in sorted(third) if third[n] == "train" and n not in known]
    new = Cut(root / "new")
    assert [document.text for document in new.documents("train", "web")] == [f"text {n}" for n in mine]
    assert new.summary["web"]["train"]["documents"] == len(mine)
    assert not list(new.documents("held_out"))
    assert learned({"web/1": new.folder}) == {f"{n:032x}" for n in third if third[n] == "held_out" and n in known}


@pytest.mark.parametrize(
    ("change", "grew"),
    [
        ({"files": {"a.txt": "1", "b.txt": "2"}}, True),
        ({"files": {"a.txt": "other", "b.txt": "2"}}, False),
        ({"files": {"b.txt": "2"}}, False),
        ({"files": {"a.txt": "1", "b.txt": "2"}, "read": "jsonl"}, False),
    ],
)
def test_only_files_that_come_make_a_stratum(tmp_path: Path, change: dict, grew: bool) -> None:
    web = {"read": "text", "files": {"a.txt": "1"}}
    old = cut_of(tmp_path / "old", {1: "train", 2: "train"}, {"seed": 1, "sources": {"web": web}})
    key = {"seed": 1, "sources": {"web": web | change, "books": {"read": "text", "files": {}}}}
    new = cut_of(tmp_path / "new", {1: "train", 2: "train", 7: "train"}, key)
    made: list[str] = []

    def stored(name: str, key: object, make: object) -> Path:
        made.append(name)
        make(tmp_path / "made")  # type: ignore[operator]
        (tmp_path / "made" / KEY).write_text(json.dumps({"name": name, "key": key}))
        return tmp_path / "made"

    found = strata(new, "web", {"web": old.folder}, stored)
    if not grew:
        assert found == {"web": new} and not made
        return
    assert found == {"web": old, "web/1": Cut(tmp_path / "made")} and made == ["stratum/web"]
    again = strata(new, "web", {name: cut.folder for name, cut in found.items()}, stored)
    assert again == found and len(made) == 1, "the next start finds it as it is"
    assert strata(old, "web", {"web": old.folder}, stored) == {"web": old}
    folders = {name: cut.folder for name, cut in found.items()}
    assert strata(old, "web", folders, stored) == {"web": old}, "what came went again"
    files = {"files": {"a.txt": "1", "c.txt": "3"}}
    other = cut_of(tmp_path / "other", {1: "train", 2: "train", 8: "train"}, {**key, "sources": {"web": web | files}})
    assert strata(other, "web", folders, stored) == {"web": other} and len(made) == 1, "b.txt went, another came"
