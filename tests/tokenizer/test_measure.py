"""Twin and closed form: counts by hand over a few texts; what tokens are; the page says what was counted."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest

from pretrain.cli.main import main
from pretrain.tokenizer.bpe import train
from pretrain.tokenizer.measure import KINDS, RARE, Text, kind, makeup, measure, scripts, shown, unreachable
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.tokenizer.wordpiece import train as train_wordpiece

MUTANTS = [
    ("src/pretrain/tokenizer/measure.py", "len(one.text.split())", "len(one.text)"),
    ("src/pretrain/tokenizer/measure.py", "len(one.text.encode())", "len(one.text)"),
    ("src/pretrain/tokenizer/measure.py", "self._seen(1, RARE - 1", "self._seen(1, RARE"),
    ("src/pretrain/tokenizer/measure.py", "if i < len(found)]] = False", "if i < len(found)]] = True"),
    ("src/pretrain/tokenizer/measure.py", "if ids.tolist() != [i]]", "if len(ids) > 9]"),
]
LEARNED = ["the cat's hat 42, naïve café Москва 日本\n" * 9, "def f(x):\n    return x\n" * 9]
TRAINED = train(LEARNED, 256 + 40 + 10, reserved=10)
TEXTS = [
    Text("books", "en", "the cat and the hat"),
    Text("books", "fr", "naïve café"),
    Text("code", "en", "def f(x):\n    return x\n" * RARE),
]


def test_counts_are_those_by_hand() -> None:
    use = measure(TRAINED, TEXTS)
    seen = Counter(i for one in TEXTS for i in TRAINED.encode(one.text).tolist())
    assert use.counts.tolist() == [seen[i] for i in range(TRAINED.vocab_size)]
    assert set(use.unused(TRAINED.specials)) == set(range(296)) - seen.keys()
    assert set(use.rare(TRAINED.specials)) == {i for i, count in seen.items() if count < RARE}
    french, books = use.languages["fr"], use.sources["books"]
    assert (french.bytes, french.words, french.tokens) == (12, 2, len(TRAINED.encode("naïve café")))
    assert (books.bytes, books.words) == (19 + 12, 5 + 2)
    assert french.bytes_per_token == 12 / french.tokens and french.tokens_per_word == french.tokens / 2
    assert use.total.tokens == sum(seen.values()) == use.languages["en"].tokens + french.tokens


def test_what_tokens_stand_for() -> None:
    cases = {b" the": "words", b"ing": "letters", b" 12": "digits", b" (": "signs", b"\n  ": "spaces", b"x1": "mixed"}
    cases |= {b"\xe6\x97": "parts of characters", b"a": "single bytes", "é".encode(): "letters"}
    assert {piece: kind(piece) for piece in cases} == cases
    counts = makeup(TRAINED)
    assert set(counts) <= set(KINDS) and counts["specials"] == 10 and counts["single bytes"] == 256
    assert counts.total() == TRAINED.vocab_size
    assert scripts(TRAINED)["Cyrillic"] == sum("М" <= shown(TRAINED, i)[1:].strip()[:1] <= "я" for i in range(296))
    inside = train_wordpiece([" ".join(map("".join, permutations("abcdef", 3)))] * 9, 60, reserved=10)
    assert makeup(inside)["words"] == sum(
        not piece.startswith("##") and piece.isalpha() for piece in inside.inner.get_vocab(with_added_tokens=False)
    )


def test_a_token_that_no_text_becomes_is_found() -> None:
    assert unreachable(TRAINED) == []
    orphan = TRAINED.text.replace('"Ġ": 220', '"Ġ": 220,\n "zq": 400')
    assert orphan != TRAINED.text
    broken = Tokenizer(type(TRAINED.inner).from_str(orphan))
    assert unreachable(broken) == [400] and shown(broken, 400) == "'zq'"


def test_two_tokenizers_on_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TRAINED.save(tmp_path / "ours")
    train(LEARNED, 256 + 10, reserved=10).save(tmp_path / "bytes")
    (tmp_path / "some.txt").write_text("the cat's hat <b>\n" * 30)
    command = ["inspect", str(tmp_path / "ours"), "--against", str(tmp_path / "bytes" / "tokenizer.json")]
    assert main([*command, "--corpus", str(tmp_path / "some.txt"), "--html", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    use = measure(TRAINED, [Text("", "", "the cat's hat <b>\n" * 30)])
    figures = f"{use.total.tokens_per_word:.3f}  {use.total.bytes_per_token:.3f}"
    alone = f"{18 / 4:.3f}  1.000"  # 18 bytes and four words a line
    assert [line for line in said.splitlines() if line.startswith("  some.txt") and figures in line and alone in line]
    page = (tmp_path / "page.html").read_text()
    assert f"{use.total.bytes_per_token:.3f}" in page and "&lt;b&gt;" not in page.split("<pre>")[0]
    assert "<b>\n" not in page and "http" not in page.replace("http-equiv", "")
    assert main([*command[:2]]) == 0 and "bytes a token" not in capsys.readouterr().out
