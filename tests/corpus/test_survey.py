"""Twin: what the page says is what the verdicts say; it needs nothing but itself, whatever a URL holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pretrain.cli.main import main
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Rule
from pretrain.corpus.survey import Score, survey
from pretrain.watch.corpus_page import histogram, page

MUTANTS = [
    ("src/pretrain/corpus/survey.py", "np.argsort(abs(values[rows] - bound)", "np.argsort(-abs(values[rows] - bound)"),
    ("src/pretrain/corpus/survey.py", "seen = alive | ", "seen = alive & "),
    ("src/pretrain/corpus/survey.py", "values[self._held(values)], edges", "values[values > 0.5], edges"),
    ("src/pretrain/corpus/survey.py", "edges = np.unique([*grid, *reached])", "edges = grid"),
]
RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "jsonl"
paths = ["*.jsonl"]
[[corpus.steps]]
use = "length"
min_characters = 200
[[corpus.steps]]
use = "minhash"
[train]
steps = 1
batch = 64
sequence = 64
"""


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.found.append((tag, dict(attributes)))


def test_the_page_says_what_the_verdicts_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw, lines = np.random.Generator(np.random.Philox(3)), []
    for i in range(80):
        text = " ".join(
            f"w{j}" for j in np.random.Generator(np.random.Philox(i % 60)).integers(0, 500, 20 + (i % 60) * 7 % 60)
        )
        lines.append(json.dumps({"text": text, "url": f"https://www.site{draw.integers(5)}.org/<script>{i}"}))
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{", "{"]))
    (tmp_path / "x.toml").write_text(RECIPE)
    assert main(["run", "x.toml", "--to", "corpus"]) == 0
    (folder,) = (tmp_path / "store").glob("corpus-*")
    rows, found = list(Cut(folder).verdicts()), survey(folder)
    dropped = {step: sum(row["step"] == step for row in rows) for step in ("read", "length", "minhash")}
    assert found.losses() == [
        ("reading", 82, dropped["read"]),
        ("length", 80, dropped["length"]),
        ("minhash (copies)", 80 - dropped["length"], dropped["minhash"]),
    ]
    assert min(dropped.values()) > 0
    assert sum(found.domains["kept"].values()) == sum(row["split"] != "dropped" for row in rows)
    assert set(found.domains["kept"]) <= {f"site{i}.org" for i in range(5)}
    (score,) = [score for score in found.stages[1].scores if score.name == "characters"]
    bars, bound = score.bars(), score.bounds[0]
    assert bars is not None and bars.counts.sum() + bars.below + bars.above == 80
    assert score.lost == dropped["length"]
    lengths = sorted(len(json.loads(line)["text"]) for line in lines)
    nearest = [length for length in lengths if length < 200][-3:]
    assert sorted(len(one.text) for one in bound.dropped) == nearest
    text = page(found, "A <title>")
    tags = Tags()
    tags.feed(text)
    assert not any(
        tag in ("script", "link", "img", "iframe") or {"src", "href"} & set(attributes)
        for tag, attributes in tags.found
    )
    assert f"{dropped['length']:,} lost" in re.sub("<[^>]+>", " ", text)
    found.tokens["source"].update({"web": 1234})
    assert "kept, 1,234 tokens to train on</text>" in page(found, "x")
    capsys.readouterr()
    assert main(["inspect", str(folder), "--html", "page.html"]) == 0
    assert "minhash (copies)" in capsys.readouterr().out and (tmp_path / "page.html").read_text().startswith(
        "<!doctype"
    )
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no corpus" in capsys.readouterr().err


def test_samples_of_each_bound_come_from_all_parts_and_after_the_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.replace('use = "length"\nmin_characters = 200', 'use = "gopher_quality"\nmax_words = 300')
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": " ".join(f"item{i}" for i in range(20))}))
    steps = '[[corpus.steps]]\nuse = "redact"\n[[corpus.steps]]\nuse = "decontaminate"\nagainst = ["quiz.jsonl"]\n'
    (tmp_path / "x.toml").write_text(recipe.replace("[train]", steps + "[train]"))
    stop, counts = "the be to of and that have with ", []
    (tmp_path / "in").mkdir()
    for part in range(3):
        sizes = [20 + part, 49 - part, 50 + part, 100, 299 - part, 301 + part, 400]
        counts += sizes
        pages = [
            stop + " ".join(f"w{part}x{i}x{j}" for j in range(n - 9)) + " reader@example.com"
            for i, n in enumerate(sizes)
        ]
        if part == 1:
            pages[3] += " " + " ".join(f"item{i}" for i in range(20))
        (tmp_path / "in" / f"{part}.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in pages))
    (tmp_path / "x.toml").write_text((tmp_path / "x.toml").read_text().replace('"*.jsonl"', '"in/*.jsonl"'))
    monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", 8000)
    assert main(["run", "x.toml", "--to", "corpus", "corpus.engine.processes=0"]) == 0
    (folder,) = (tmp_path / "store").glob("corpus-*")
    found = survey(folder)
    assert found.parts == 3
    (score,) = [one for stage in found.stages for one in stage.scores if one.name == "words"]
    values = np.concatenate(score.values)
    for bound, (low, high) in zip(score.bounds, [(50, 1e9), (0, 300)], strict=True):
        lost = values[values < low] if bound.value == 50 else values[values > high]
        kept = values[(values >= 50) & (values <= 300)]
        for samples, pool in ((bound.kept, kept), (bound.dropped, lost)):
            gaps = sorted(abs(pool - bound.value))[:3]
            assert sorted(abs(one.value - bound.value) for one in samples) == gaps
    assert [(hit.evaluation, hit.line, hit.documents, hit.share) for hit in found.hits] == [("quiz", 1, 1, 1.0)]
    text = page(found, "x")
    assert "reader@example.com" not in text and "&lt;EMAIL&gt;" in text and "item0 item1" in text
    capsys.readouterr()
    assert main(["inspect", str(folder), "--items"]) == 0
    assert "quiz:1  1 document, 100%: item0 item1" in capsys.readouterr().out


def test_no_bar_stands_on_both_sides_of_a_bound() -> None:
    draw = np.random.Generator(np.random.Philox(2))
    score = Score("share", [Rule("share", "too much", at_most=0.3)], [draw.uniform(0, 0.1, 10_000), np.full(20, 0.5)])
    bars = score.bars()
    assert bars is not None and score.lost == 20 and 0.3 in bars.edges
    outside = bars.above + bars.counts[bars.edges[:-1] >= 0.3].sum()
    assert outside == 20 and bars.counts.sum() + bars.below + bars.above == 10_020
    assert histogram(score).count("#c8553d") >= 1
    for rule, values in ((Rule("x", "few", at_least=1), [0.0, 1]), (Rule("x", "many", at_most=0), [1.0, 0])):
        one = Score("x", [rule], [np.repeat(values, [3, 40])])  # all that is kept stands at the bound
        bars, drawn = one.bars(), histogram(one)
        assert bars is not None and bars.kept.sum() == 40 and bars.counts.sum() == 43
        fills = re.findall(r'fill="(#\w+)"><title>[^<]*: (\d+)<', drawn)
        assert sorted(fill for fill in fills if fill[1] != "0") == [("#3d7ea6", "40"), ("#c8553d", "3")]
    wide = Score("words", [Rule("words", "few", at_least=50), Rule("words", "many", at_most=100_000)])
    wide.values.append(np.array([10.0, 60, 900, 200_000]))
    found = wide.bars()
    assert found is not None and found.logarithmic and {50.0, 100_000.0} <= set(found.edges.tolist())
