"""Closed form: an output is named by what went into it, is whole or absent, and what changed is said."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pretrain.run.store import Store, difference


def test_a_folder_is_found_by_its_key_and_only_when_whole(tmp_path: Path) -> None:
    store, key = Store(tmp_path), {"version": 1, "settings": {"vocab": 10}, "files": {"a.txt": "x" * 32}}
    assert store.find("tokens/web", key) is None and store.why("tokens/web", key, None) == "nothing is there yet"
    with pytest.raises(RuntimeError), store.make("tokens/web", key):
        raise RuntimeError
    assert store.find("tokens/web", key) is None
    with store.make("tokens/web", key) as partial:
        (partial / "data").write_bytes(b"12345")
    found = store.find("tokens/web", key)
    assert found is not None and found.name.startswith("tokens-") and found == store.folder("tokens/web", dict(key))
    other = {**key, "settings": {"vocab": 20}, "files": {"a.txt": "y" * 32}}
    assert store.find("tokens/web", other) is None
    assert store.why("tokens/web", other, found) == "changed: files.a.txt, settings.vocab 10 -> 20"
    assert store.why("tokens/web", other, None) == "nothing is there yet", "another run's output explains nothing"
    (found / "data").write_bytes(b"1234")
    assert store.find("tokens/web", key) is None and store.why("tokens/web", key, found) == "its folder is damaged"


def test_two_runs_never_make_one_output_at_once(tmp_path: Path) -> None:
    store, key, made = Store(tmp_path / "store"), {"version": 1}, []

    def run(number: int) -> None:
        with store.alone("tokens/web", key):
            if store.find("tokens/web", key) is None:
                with store.make("tokens/web", key) as partial:
                    time.sleep(0.02)
                    (partial / "data").write_text(str(number))
                made.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert len(made) == 1
    assert [path.name for path in store.root.iterdir()] == [store.folder("tokens/web", key).name]


def test_differences_in_words() -> None:
    assert (
        difference({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": "new"}) == "changed: b.1 2 -> 3, c unsaid -> new"
    )
    many = difference({str(i): i for i in range(9)}, {})
    assert many.count("-> unsaid") == 6 and many.endswith("and 3 more")


def test_steps_are_told_apart_by_their_names_not_their_numbers() -> None:
    c4, url, minhash = {"use": "c4"}, {"use": "url", "max_words": 1}, {"use": "minhash"}
    before = {"steps": [c4, url, c4]}
    other = {"steps": [minhash, c4, {**url, "max_words": 2}, {**c4, "sources": 3}]}
    said = "changed: steps.c4-2.sources unsaid -> 3, steps.minhash.use unsaid -> minhash, steps.url.max_words 1 -> 2"
    assert difference(before, other) == said
    assert difference(before, {"steps": [url, c4, c4]}) == "changed: the order of its steps"
