"""Twin: what the page says is what the verdicts say; it needs nothing but itself, whatever a URL holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pretrain.cli.main import main
from pretrain.corpus.cut import Cut
from pretrain.corpus.survey import survey
from pretrain.watch.corpus_page import losses, page

MUTANTS = [
    ("src/pretrain/corpus/survey.py", "np.argsort(abs(values[rows] - bound)", "np.argsort(-abs(values[rows] - bound)"),
    ("src/pretrain/corpus/survey.py", "seen = alive | ", "seen = alive & "),
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
    assert losses(found) == [
        ("reading", 82, dropped["read"]),
        ("length", 80, dropped["length"]),
        ("minhash (copies)", 80 - dropped["length"], dropped["minhash"]),
    ]
    assert min(dropped.values()) > 0
    assert sum(found.domains["kept"].values()) == sum(row["split"] != "dropped" for row in rows)
    assert set(found.domains["kept"]) <= {f"site{i}.org" for i in range(5)}
    (score,) = [score for score in found.stages[1].scores if score.name == "characters"]
    counts, _ = score.histogram()
    assert counts.sum() == 80
    lengths = sorted(len(json.loads(line)["text"]) for line in lines)
    nearest = [length for length in lengths if length < 200][-3:]
    assert sorted(len(one.text) for one in score.dropped) == nearest
    text = page(found, "A <title>")
    tags = Tags()
    tags.feed(text)
    assert not any(
        tag in ("script", "link", "img", "iframe") or {"src", "href"} & set(attributes)
        for tag, attributes in tags.found
    )
    assert f"{dropped['length']:,} lost" in re.sub("<[^>]+>", " ", text)
    capsys.readouterr()
    assert main(["inspect", str(folder), "--html", "page.html"]) == 0
    assert "minhash (copies)" in capsys.readouterr().out and (tmp_path / "page.html").read_text().startswith(
        "<!doctype"
    )
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no corpus" in capsys.readouterr().err
