"""Twin: items found are those that share a run of words, by sets of tuples; each hit is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain.base.errors import UserError
from pretrain.base.extension import find, leaf
from pretrain.corpus.document import WORD, Document

MUTANTS = [
    ("src/pretrain/corpus/edits/decontaminate.py", "length = min(self.words, len(words))", "length = self.words"),
    ("src/pretrain/corpus/edits/decontaminate.py", "share > self.min_share", "share < self.min_share"),
    ("src/pretrain/corpus/edits/decontaminate.py", "np.flatnonzero(stands) + length", "np.flatnonzero(stands) + 1"),
    (
        "src/pretrain/corpus/edits/decontaminate.py",
        "np.append(spans[:, 0] - around, len(text))",
        "np.append(spans[:, 0], len(text))",
    ),
    ("src/pretrain/corpus/edits/decontaminate.py", "np.maximum.accumulate(spans[:, 1])", "spans[:, 1]"),
    ("src/pretrain/corpus/edits/decontaminate.py", "if len(one) >= self.min_piece", ""),
    ("src/pretrain/corpus/edits/decontaminate.py", "words[places + length - 1, 1]", "words[places, 1]"),
]
Decontaminate = leaf("corpus.edits", "decontaminate")


def text(seed: int, count: int) -> str:
    return " ".join(f"w{i}" for i in np.random.Generator(np.random.Philox(seed)).integers(0, 60, count))


def measured(step: object, document: Document) -> dict:
    after, measures = step.edit(document)  # type: ignore[attr-defined]
    assert after is document
    return measures


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
        measures = measured(step, Document("0" * 32, "web", "u", page))
        hits = json.loads(measures["hits"] or "[]")
        assert measures["items"] == len(expected) and {hit["line"] for hit in hits} == expected
        assert all(hit["evaluation"] == "quiz" and hit["words"] in page.lower() for hit in hits)


def left(page: str, items: list[str], around: int) -> list[str]:
    """Pieces of a page without its hits, a character at a time."""
    gone, common = [False] * len(page), {run for item in items for run in runs(item, min(13, len(item.split())))}
    words = list(WORD.finditer(page))
    for i, word in enumerate(words):
        for length in range(8, 14):
            if tuple(one[0].lower() for one in words[i : i + length]) in common and i + length <= len(words):
                for at in range(max(word.start() - around, 0), min(words[i + length - 1].end() + around, len(page))):
                    gone[at] = True
    pieces, before = list[str](), True
    for letter, out in zip(page, gone, strict=True):
        if not out:
            pieces = [*pieces, letter] if before else [*pieces[:-1], pieces[-1] + letter]
        before = out
    return pieces


@pytest.mark.parametrize(("around", "least"), [(200, 200), (3, 20), (0, 0)])
def test_pieces_between_hits(tmp_path: Path, around: int, least: int) -> None:
    items = [text(i, 8 + i) for i in range(12)]
    (tmp_path / "quiz.jsonl").write_text("\n".join(json.dumps({"question": one}) for one in items))
    step = Decontaminate((str(tmp_path / "quiz.jsonl"),), cut=True, around=around, min_piece=least, max_pieces=4)
    many = 0
    for number in range(24):
        draw = np.random.Generator(np.random.Philox(900 + number))
        some = [
            one
            for i in draw.integers(0, 12, number % 7)
            for one in (items[i].upper(), text(int(draw.integers(500, 900)), int(draw.integers(5, 200))))
        ]
        page = "  ".join([*some, text(300 + number, 80) + "\n"][:: 1 - 2 * (number % 2)])
        after, measures = step.edit(Document("0" * 32, "web", "u", page))
        pieces = left(page, items, around) if measures["items"] else [page]
        assert measures["pieces"] == len(pieces)
        assert after.text == ("\n\n".join(one for one in pieces if len(one) >= least) if measures["items"] else page)
        many += len(pieces) > 3
    assert many > 3 or around == 200
    inside = np.array([[2, 3], [1, 8]])  # a short run within a longer one
    assert find("corpus.edits", "decontaminate").between("abcdefghij", inside, 0) == ["a", "ij"]
    (rule,) = step.rules()
    assert rule.measure == "pieces" and rule.holds(4) and not rule.holds(5)
    (rule,) = Decontaminate((str(tmp_path / "quiz.jsonl"),)).rules()
    assert rule.measure == "items" and not rule.holds(1)


@pytest.mark.skipif(
    not (Path(__file__).parents[3] / "shared" / "data" / "eval").exists(), reason="needs ../shared/data"
)
def test_a_real_evaluation_set() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "eval" / "gsm8k"
    step = Decontaminate((str(folder),))
    question = json.loads((folder / "gsm8k_test.jsonl").read_text().splitlines()[7])["question"]
    (hit,) = json.loads(measured(step, Document("0" * 32, "web", "u", f"Before. {question} After."))["hits"])
    assert hit["evaluation"] == "gsm8k/gsm8k_test" and hit["line"] == 8 and hit["share"] == 1.0
    assert (
        measured(step, Document("0" * 32, "web", "u", "A page on robes, bolts and fibers, without the question."))[
            "items"
        ]
        == 0
    )


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Decontaminate((str(tmp_path / "none.jsonl"),)).edit(Document("0" * 32, "web", "u", "text"))
    (tmp_path / "a.jsonl").write_text('{"q": "one two three four five six seven eight nine"}\n{broken\n')
    with pytest.raises(UserError, match=r"a.jsonl:2: no JSON"):
        Decontaminate((str(tmp_path / "a.jsonl"),)).edit(Document("0" * 32, "web", "u", "text"))
