"""Ordeal: the stage samples by the weights of the sources and says what, and takes published files over by recipe."""

import base64
import json
from pathlib import Path

import pytest

from pretrain.base.errors import UserError
from pretrain.corpus.cut import Cut
from pretrain.corpus.sample import Sample
from pretrain.events.kinds import Event, Notice, Stage
from pretrain.recipe.read import load
from pretrain.run.stages import execute
from pretrain.tokenizer.letters import bytes_of
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/corpus/sample.py", "left -= len(data)", "left -= 1"),
    ("src/pretrain/corpus/sample.py", 'data[:left].decode("utf-8", "ignore")', 'data.decode("utf-8", "ignore")'),
    ("src/pretrain/run/stages.py", '"bytes": sample.bytes}', '"bytes": 0}'),
    ("src/pretrain/run/stages.py", '"split": split, "specials"', '"split": 0, "specials"'),
]
RECIPE = """
[run]
name = "small"
seed = 3
[[corpus.sources]]
name = "latin"
read = "jsonl"
paths = ["latin.jsonl"]
weight = 3
[[corpus.sources]]
name = "greek"
read = "jsonl"
paths = ["greek.jsonl"]
[corpus]
held_out = 0
[tokenizer]
vocab_size = 290
reserved = 16
sample_bytes = 4000
[train]
steps = 1
batch = 64
sequence = 64
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, letters in (("latin", "abcdefg"), ("greek", "αβγδεζη")):
        words = [f"{letters[i % 7]}{letters[i % 5]}{letters[i % 3]}{letters[i * i % 7]}" for i in range(900)]
        lines = [json.dumps({"text": " ".join(words[i : i + 30]), "url": f"u{i}"}) for i in range(870)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*said: str, last: str = "tokenizer") -> tuple[Tokenizer, list[Event]]:
    events = list[Event]()
    execute(load("small.toml", said), last=last, subscribers=[events.append])
    done = [event for event in events if isinstance(event, Stage) and event.name == "tokenizer"]
    return Tokenizer.load(done[-1].folder), events


def letters(tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens of two Latin letters or more, and of Greek ones."""
    pieces = [piece.decode("utf-8", "ignore") for piece in tokenizer.pieces if len(piece) > 1]
    return sum(any(c in "abcdefg" for c in one) for one in pieces), sum(any(c > "Α" for c in one) for one in pieces)


def test_the_weights_decide_what_it_is_trained_on(folder: Path) -> None:
    first, events = made()
    said = [event.text for event in events if isinstance(event, Notice)]
    assert "the tokenizer is trained on 3.91 KiB of text: 2.93 KiB of latin, 1000 B of greek" in said
    cut = Cut(next(folder.glob("store/corpus-*")))
    sample = Sample.of(cut, 4000, {"latin": 3, "greek": 1})
    sizes = {name: 0 for name in cut.summary}
    for document in sample.documents():
        sizes[document.source] += len(document.text.encode())
    assert sizes["latin"] == 3000 and 997 <= sizes["greek"] <= 1000  # no letter is cut in two
    assert list(sample) == list(sample) and first.vocab_size == 290
    other, _ = made("corpus.sources.0.weight=0")
    assert letters(other)[0] == 0 and letters(first)[0] > 0
    again, events = made()
    assert again.digest == first.digest
    assert [event.state for event in events if isinstance(event, Stage) and event.name == "tokenizer"] == ["reused"]


def test_wordpiece_and_characters_by_recipe(folder: Path) -> None:
    pieces, _ = made(
        "tokenizer.kind=wordpiece", "tokenizer.lowercase=true", "tokenizer.vocab_size=290", "tokenizer.reserved=230"
    )
    assert pieces.decode(pieces.encode("ABCD")).startswith("a") and pieces.mask is not None
    single, _ = made("tokenizer.kind=characters", "tokenizer.byte_fallback=true", "tokenizer.multiple=64")
    assert single.vocab_size % 64 == 0 and single.decode_bytes(single.encode("aЖ")).decode() == "aЖ"


@pytest.mark.parametrize(
    ("kind", "rule"), [("bpe", "lowercase=true"), ("bpe", "byte_fallback=true"), ("wordpiece", "digits=1")]
)
def test_a_rule_of_another_kind_is_refused(folder: Path, kind: str, rule: str) -> None:
    with pytest.raises(UserError, match=rf"tokenizer\.{rule.partition('=')[0]}: kind = '{kind}' has no such rule; exp"):
        load("small.toml", [f"tokenizer.kind={kind}", f"tokenizer.{rule}"])


def test_ranks_are_taken_over_by_recipe(folder: Path) -> None:
    ours, _ = made()
    pieces = sorted(ours.inner.get_vocab(with_added_tokens=False).items(), key=lambda one: one[1])
    lines = [base64.b64encode(bytes_of(piece)) + b" %d\n" % i for piece, i in pieces]
    Path("published.tiktoken").write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"published\.tiktoken: tiktoken ranks name no pattern"):
        made("tokenizer.from=published.tiktoken")
    taken = ["tokenizer.from=published.tiktoken", "tokenizer.split=llama3", 'tokenizer.specials=["<|endoftext|>"]']
    theirs, events = made(*taken, last="tokens")
    text = "abc gfe αβγ 1234\r\n"
    assert theirs.encode(text).tolist() == ours.encode(text).tolist() and theirs.end == len(pieces)
    assert any("encodes" in event.text for event in events if isinstance(event, Notice))
    assert not [one for one in events if isinstance(one, Notice) and one.level == "warning"]
    _, events = made(*taken[:2], last="tokens")
    (said,) = [one.text for one in events if isinstance(one, Notice) and one.level == "warning"]
    assert said.startswith("the tokenizer has no token that ends a document")
    single, _ = made(*taken, "tokenizer.digits=1")
    assert single.digest != theirs.digest


def test_a_document_that_is_no_utf8_and_a_sample_that_is_too_small(folder: Path) -> None:
    with Path("latin.jsonl").open("ab") as file:
        file.write(b'\n{"text": "abc \xff\xfe def", "url": "bad"}\n{"text": "half \\ud83d pair", "url": "half"}\n')
    events = list[Event]()
    execute(load("small.toml", []), last="corpus", subscribers=[events.append])
    assert any("left out" in event.text for event in events if isinstance(event, Notice))
    with pytest.raises(UserError, match="the sample holds merges for"):
        made("tokenizer.vocab_size=50000")
