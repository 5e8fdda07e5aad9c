"""Oracle: a faster encoder serves where it is equal to `tokenizers`, and only there; the log says why."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.tokenizer import fast
from pretrain.tokenizer.bpe import characters, train
from pretrain.tokenizer.splits import SPLITS
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/tokenizer/fast.py", 'if not one["special"]]  # it', "]  # it"),
    ("src/pretrain/tokenizer/tokenizer.py", "if not np.array_equal(a, b)]", "if len(a) != len(b)]"),
    ("src/pretrain/tokenizer/fast.py", "if merged != sorted(merged):", "if merged == sorted(merged):"),
]
for package in ("gigatoken", "tiktoken"):
    pytest.importorskip(package, reason="the extra `fast` is not installed")
TEXTS = ["def area(radius):\n    return 3.14159 * radius ** 2\n" * 3, "the cat's hat, naïve café\n" * 9]
TRAINED = {split: train(TEXTS, 256 + 40 + 20, reserved=20, split=split) for split in SPLITS}


@settings(deadline=None)  # the first text builds the encoder
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("encoder", fast.ENCODERS)
@given(texts=st.lists(st.text() | st.text(alphabet="the cat's1 \n\r<|pad>é"), max_size=4))
def test_the_ids_are_equal(split: str, encoder: str, texts: list[str]) -> None:
    other = SERVED[split, encoder]
    for ours, theirs in zip(other.encode_batch(texts), TRAINED[split].encode_batch(texts), strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


SERVED = {
    (split, name): Tokenizer(one.inner, one.config, name) for split, one in TRAINED.items() for name in fast.ENCODERS
}


def test_the_fastest_that_is_equal_serves_and_travels() -> None:
    served, why = TRAINED["llama3"].faster(TEXTS)
    assert served.encoder == "gigatoken" and why.startswith("gigatoken encodes: equal to tokenizers on")
    assert served.digest == TRAINED["llama3"].digest and served.text == TRAINED["llama3"].text
    there = pickle.loads(pickle.dumps(served))  # noqa: S301 (our own, as a process pool does)
    assert there.encoder == "gigatoken" and there.encode("a<|pad|>").tolist() == served.encode("a<|pad|>").tolist()


def test_a_pattern_that_it_does_not_know_goes_to_the_next() -> None:
    served, why = train(TEXTS, 300, reserved=20, digits=2).faster(TEXTS)
    assert served.encoder == "tiktoken" and "equal" in why


def test_what_neither_knows_is_left_to_tokenizers() -> None:
    _, why = characters(TEXTS, byte_fallback=True).faster(TEXTS)
    assert "tiktoken: its text is not split by one pattern into bytes" in why
    served, why = characters(TEXTS).faster(TEXTS)
    assert served.encoder == "tokenizers" and why.startswith("tokenizers encodes (gigatoken: ")


def test_one_that_differs_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(text: str) -> fast.Encode:
        encode = fast.tiktoken(text)
        return lambda texts: [ids + ("zebra" in text) for text, ids in zip(texts, encode(texts), strict=True)]

    monkeypatch.setitem(fast.ENCODERS, "gigatoken", wrong)
    assert TRAINED["llama3"].faster(["a horse"])[0].encoder == "gigatoken"
    assert TRAINED["llama3"].faster(["a zebra"])[0].encoder == "tiktoken"
    monkeypatch.setitem(fast.ENCODERS, "tiktoken", wrong)
    served, why = TRAINED["llama3"].faster(["a zebra"])
    assert served.encoder == "tokenizers" and "gigatoken differs on 1 of" in why and "such as 'a zebra'" in why


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    served, why = TRAINED["gpt2"].faster(TEXTS)
    assert served.encoder == "tokenizers" and "pip install 'pretrain[fast]'" in why


def test_the_cache_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "RENEW", 100)
    made, ids = fast.gigatoken(TRAINED["llama3"].text), TRAINED["llama3"].encode(TEXTS[0])
    first = made.__closure__
    before = {id(cell.cell_contents) for cell in first or ()}
    assert all(np.array_equal(made([TEXTS[0]])[0], ids) for _ in range(3))
    assert {id(cell.cell_contents) for cell in first or ()} != before


def test_half_a_surrogate_pair_is_refused_here_too(tmp_path: Path) -> None:
    TRAINED["llama3"].save(tmp_path)
    for encoder in fast.ENCODERS:
        with pytest.raises(UserError, match="text 0 holds half a surrogate pair"):
            Tokenizer.load(tmp_path, encoder=encoder).encode("\udfff")
