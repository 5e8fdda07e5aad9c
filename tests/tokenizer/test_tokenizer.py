"""Property and oracle: exact both ways over any Unicode, no special from text, and the same ids in transformers."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.tokenizer.bpe import byte_level, characters, train
from pretrain.tokenizer.specials import DOCUMENT_END, specials
from pretrain.tokenizer.splits import SPLITS, pattern
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/tokenizer/tokenizer.py", "self.inner.encode_special_tokens = True", "pass"),
    ("src/pretrain/tokenizer/bpe.py", "add_prefix_space=False", "add_prefix_space=True"),
    ("src/pretrain/tokenizer/bpe.py", "BPE(vocabulary, [], byte_fallback=True)", "BPE(vocabulary, [])"),
    ("src/pretrain/tokenizer/tokenizer.py", "if 0 <= i < size", "if i < size"),
    ("src/pretrain/tokenizer/specials.py", "-vocab_size % multiple", "vocab_size % multiple"),
    ("src/pretrain/tokenizer/specials.py", "named[: reserved - len(own)]", "named[:reserved]"),
    ("src/pretrain/tokenizer/splits.py", "{{1,{digits}}}", "{{1,3}}"),
]
TEXTS = [
    "def area(radius):\n    return 3.14159 * radius ** 2\n" * 3,
    "the cat, the hat and the bat\n" * 9,
    "naïve café\n" * 5,
]
TRAINED = train(TEXTS, 256 + 40 + 20, reserved=20)
BY_SPLIT = {split: train(TEXTS, 256 + 30 + 20, reserved=20, split=split) for split in SPLITS}
BY_CHARACTER = characters(TEXTS, reserved=4, byte_fallback=True)


@given(st.text())
def test_any_text_comes_back_byte_for_byte(text: str) -> None:
    for tokenizer in [TRAINED, BY_CHARACTER, *BY_SPLIT.values()]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode_bytes(ids) == text.encode() and tokenizer.decode(ids) == text
        assert not tokenizer.specials & set(ids.tolist())


@given(st.binary())
def test_any_bytes_can_be_said_and_read_back(data: bytes) -> None:
    single = {piece: i for i, piece in enumerate(TRAINED.pieces) if len(piece) == 1}
    ids = [single[bytes([byte])] for byte in data]
    assert TRAINED.decode_bytes(ids) == data and TRAINED.decode(ids) == data.decode(errors="replace")


@given(st.lists(st.integers(-300, 400)))
def test_bytes_of_any_ids(ids: list[int]) -> None:
    known = [i for i in ids if 0 <= i < 296]
    assert TRAINED.decode_bytes(ids) == b"".join(TRAINED.decode_bytes([i]) for i in known)
    assert all(TRAINED.decode_bytes([i]) for i in known)


def test_half_a_surrogate_pair_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match=r"text 1 holds half a surrogate pair, U\+D83D, at character 2"):
        TRAINED.encode_batch(["fine \ud7ff", "no\ud83d"])


def test_no_text_is_encoded_to_a_special() -> None:
    for name in specials(316, 20):
        ids = TRAINED.encode(f"a{name}b")
        assert not TRAINED.specials & set(ids.tolist()) and TRAINED.decode(ids) == f"a{name}b"
    assert TRAINED.end == TRAINED.id(DOCUMENT_END) == 296 and TRAINED.vocab_size == 316
    assert (TRAINED.pad, TRAINED.mask) == (297, 298)


def test_the_vocabulary_is_rounded_up_and_holds_the_users_own_specials() -> None:
    made = train(TEXTS, 316, reserved=20, own=["<|page|>", "<|cell|>"], multiple=128)
    assert made.vocab_size == 384 and made.id("<|page|>") == 296 + 16 and made.id("<|cell|>") == 296 + 17
    assert len(made.specials) == 384 - 296 and made.decode(made.encode("<|page|>")) == "<|page|>"
    assert train(TEXTS, 384, reserved=20 + 68, multiple=128).vocab_size == 384
    few = specials(300, 3, own=["<a>", "<b>"])
    assert few == [DOCUMENT_END, "<a>", "<b>"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("digits", ["pattern", 1, 2, 3])
def test_digits_go_in_groups_as_said(split: str, digits: str | int) -> None:
    text = " 12345 ٣٤٥٦ x1"
    cut = byte_level(pattern(split, digits)).pre_tokenize_str(text)
    longest = max(sum(letter.isdigit() for letter in text[a:b]) for _, (a, b) in cut)
    assert longest == (digits if digits != "pattern" else 5 if split == "gpt2" else 3)
    assert [text[a:b] for _, (a, b) in cut][:2] == (
        [" 12345", " ٣٤٥٦"] if longest == 5 else [" ", text[1 : 1 + longest]]
    )


def test_the_patterns_cut_as_published() -> None:
    """What the authors' own examples show: where contractions, capitals, slashes and line ends go."""
    text = "I'LL don't HTTPServer a/b//\n\n x"
    cuts = {
        "gpt2": ["I", "'", "LL", " don", "'t", " HTTPServer", " a", "/", "b", "//", "\n\n", " x"],
        "llama3": ["I", "'LL", " don", "'t", " HTTPServer", " a", "/b", "//\n\n", " x"],
        "o200k": ["I'LL", " don't", " HTTPServer", " a", "/b", "//\n\n", " x"],
    }
    for split, expected in cuts.items():
        cut = BY_SPLIT[split].inner.pre_tokenizer.pre_tokenize_str(text)
        assert [text[a:b] for _, (a, b) in cut] == expected


def test_training_is_deterministic_whatever_the_order() -> None:
    assert train(TEXTS[::-1], 316, reserved=20).text == TRAINED.text
    assert train(TEXTS, 316, reserved=20, split="gpt2").digest != TRAINED.digest


def test_what_it_makes_is_pinned_to_the_version() -> None:
    """Other bytes than these want another BPE_VERSION and a line under Numerics."""
    assert TRAINED.encode("the cafe naïve radius").tolist() == [258, 283, 68, 220, 284, 294]


def test_what_is_saved_is_the_same_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    TRAINED.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["def f(x):\n\treturn  x", "naïve  🙂 don't", " leading and trailing ", "a.b , c !"]:
        assert theirs(text)["input_ids"] == TRAINED.encode(text).tolist()
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.eos_token_id == TRAINED.end
    assert Tokenizer.load(tmp_path).digest == TRAINED.digest


def test_a_word_that_is_called_None_ends_no_document(tmp_path: Path) -> None:
    made = train(["None of None, None\n"] * 50, 256 + 3 + 16, reserved=16)
    assert made.id("None") is not None and made.end == made.id(DOCUMENT_END)
    made.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    assert Tokenizer.load(tmp_path).end == made.end
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"no readable tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_it_travels_to_other_processes() -> None:
    there = pickle.loads(pickle.dumps(TRAINED))  # noqa: S301 (what we wrote ourselves, as a process pool does)
    assert there.digest == TRAINED.digest and there.encode("<|pad|>").tolist() == TRAINED.encode("<|pad|>").tolist()


def test_characters() -> None:
    made = characters(["hello", "world\n"], reserved=4)
    assert made.decode(made.encode("hold")) == "hold" and made.vocab_size == 8 + 1 + 4
    assert made.decode(made.encode("h!d")) == "h\N{REPLACEMENT CHARACTER}d"
    assert BY_CHARACTER.encode("é🙂").tolist() == [BY_CHARACTER.id("é"), *"🙂".encode()]


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match="300 ids less 256 reserved leave 44"):
        train(TEXTS, 300)
    with pytest.raises(UserError, match="merges for 2"):
        train(["ab"], 5000, reserved=20)
    with pytest.raises(UserError, match="is there already"):
        train(TEXTS, 316, reserved=20, own=["<|pad|>"])
    with pytest.raises(UserError, match="no room for 2 specials"):
        train(TEXTS, 316, reserved=2, own=["<a>", "<b>"])
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load("/nowhere")
