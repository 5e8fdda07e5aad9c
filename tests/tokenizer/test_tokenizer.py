"""Property and oracle: exact both ways over any Unicode, no special from text, and the same ids in transformers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.tokenizer.bpe import characters, specials, train
from pretrain.tokenizer.measure import fertility
from pretrain.tokenizer.tokenizer import DOCUMENT_END, Tokenizer

MUTANTS = [
    ("src/pretrain/tokenizer/tokenizer.py", "self.inner.encode_special_tokens = True", "pass"),
    ("src/pretrain/tokenizer/bpe.py", "add_prefix_space=False", "add_prefix_space=True"),
]
TEXTS = [
    "def area(radius):\n    return 3.14159 * radius ** 2\n" * 3,
    "the cat, the hat and the bat\n" * 9,
    "naïve café\n" * 5,
]
TRAINED = train(TEXTS, 256 + 40 + 20, reserved=20)


@given(st.text())
def test_any_text_comes_back_byte_for_byte(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode_bytes(ids) == text.encode() and TRAINED.decode(ids) == text
    assert not TRAINED.specials & set(ids.tolist())


def test_no_text_is_encoded_to_a_special() -> None:
    for name in specials(20):
        ids = TRAINED.encode(f"a{name}b")
        assert not TRAINED.specials & set(ids.tolist()) and TRAINED.decode(ids) == f"a{name}b"
    assert TRAINED.end == TRAINED.id(DOCUMENT_END) == 296 and TRAINED.vocab_size == 316


def test_training_is_deterministic_whatever_the_order() -> None:
    assert train(TEXTS[::-1], 316, reserved=20).text == TRAINED.text
    assert train(TEXTS, 316, reserved=20, split="gpt2").digest != TRAINED.digest


def test_what_is_saved_is_the_same_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    TRAINED.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["def f(x):\n\treturn  x", "naïve  🙂 don't", " leading and trailing ", "a.b , c !"]:
        assert theirs(text)["input_ids"] == TRAINED.encode(text).tolist()
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.eos_token_id == TRAINED.end
    assert Tokenizer.load(tmp_path).digest == TRAINED.digest


def test_characters() -> None:
    made = characters(["hello", "world\n"], reserved=4)
    assert made.decode(made.encode("hold")) == "hold" and made.vocab_size == 8 + 1 + 4
    assert made.decode(made.encode("h!d")) == "h\N{REPLACEMENT CHARACTER}d"


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match="300 ids less 256 reserved leave 44"):
        train(TEXTS, 300)
    with pytest.raises(UserError, match="merges for 2"):
        train(["ab"], 5000, reserved=20)
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load("/nowhere")


def test_fertility_counts() -> None:
    found = fertility(TRAINED, ["the cat", "naïve"])
    assert (found.bytes, found.words) == (13, 3)
    assert found.tokens == sum(len(TRAINED.encode(text)) for text in ("the cat", "naïve"))
