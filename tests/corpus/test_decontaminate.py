"""Twin: items found are those that share a run of words, by sets of tuples; each hit is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import leaf
from pretrain.corpus.document import WORD, Document

MUTANTS = [
    ("src/pretrain/corpus/filters/decontaminate.py", "length = min(self.words, len(words))", "length = self.words"),
    ("src/pretrain/corpus/filters/decontaminate.py", "share > self.min_share", "share < self.min_share"),
    ("src/pretrain/corpus/filters/decontaminate.py", "np.flatnonzero(stands) + length", "np.flatnonzero(stands) + 1"),
]
Decontaminate = leaf("corpus.filters", "decontaminate")


def text(seed: int, count: int) -> str:
    return " ".join(f"w{i}" for i in np.random.Generator(np.random.Philox(seed)).integers(0, 60, count))


def runs(said: str, length: int) -> set[tuple[str, ...]]:
    words = [word.lower() for word in WORD.findall(said)]
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_hits_are_those_of_sets(tmp_path: Path, share: float) -> None:
    items = [text(i, 8 + i) for i in range(30)]
    (tmp_path / "quiz.jsonl").write_text("\n".join(json.dumps({"question": one, "n": 3}) for one in items))
    step = Decontaminate((str(tmp_path / "quiz.jsonl"),), words=13, min_share=share)
    for number in range(30):
        words = items[number].split()
        page = f"{text(100 + number, 50)} {' '.join(words[: 8 + number // 2]).upper()} {text(200 + number, 50)}"
        expected = set()
        for i, item in enumerate(items):
            length = min(13, len(item.split()))
            said, common = item.split(), runs(page, length)
            inside = {
                at + j for at in range(len(said) - length + 1) if tuple(said[at : at + length]) in common
                for j in range(length)
            }  # fmt: skip
            if len(inside) > share * len(said):
                expected.add(i + 1)
        measures = step.measure(Document("0" * 32, "web", "u", page))
        hits = json.loads(measures["hits"] or "[]")
        assert measures["items"] == len(expected) and {hit["line"] for hit in hits} == expected
        assert all(hit["evaluation"] == "quiz" and hit["words"] in page.lower() for hit in hits)


@pytest.mark.skipif(
    not (Path(__file__).parents[3] / "shared" / "data" / "eval").exists(), reason="needs ../shared/data"
)
def test_a_real_evaluation_set() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "eval" / "gsm8k"
    step = Decontaminate((str(folder),))
    question = json.loads((folder / "gsm8k_test.jsonl").read_text().splitlines()[7])["question"]
    (hit,) = json.loads(step.measure(Document("0" * 32, "web", "u", f"Before. {question} After."))["hits"])
    assert hit["evaluation"] == "gsm8k/gsm8k_test" and hit["line"] == 8 and hit["share"] == 1.0
    assert (
        step.measure(Document("0" * 32, "web", "u", "A page on robes, bolts and fibers, without the question."))[
            "items"
        ]
        == 0
    )


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Decontaminate((str(tmp_path / "none.jsonl"),)).measure(Document("0" * 32, "web", "u", "text"))
    (tmp_path / "a.jsonl").write_text('{"q": "one two three four five six seven eight nine"}\n{broken\n')
    with pytest.raises(UserError, match=r"a.jsonl:2: no JSON"):
        Decontaminate((str(tmp_path / "a.jsonl"),)).measure(Document("0" * 32, "web", "u", "text"))
