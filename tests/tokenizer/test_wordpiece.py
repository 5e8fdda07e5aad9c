"""Oracle and twin: the ids of transformers' BERT tokenizer on our vocabulary, and greedy longest match by hand."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.tokenizer.wordpiece import train

MUTANTS = [
    ("src/pretrain/tokenizer/wordpiece.py", "BertNormalizer(lowercase=lowercase)", "BertNormalizer(lowercase=True)"),
    ("src/pretrain/tokenizer/wordpiece.py", "key=lambda one: (-counts[one], one)", "key=lambda one: counts[one]"),
    ("src/pretrain/tokenizer/wordpiece.py", "(SEPARATOR, last), (CLASS, first)", "(CLASS, first), (SEPARATOR, last)"),
]
TEXTS = ["The cat, the hat and the Bat. Unbelievable naïve café!\n" * 5, "walking talked walker talking\n" * 9]
UNCASED = train(TEXTS, 90, reserved=20, lowercase=True)
CASED = train(TEXTS, 88, reserved=20)


def test_texts_may_come_once() -> None:
    assert train(iter(TEXTS), 88, reserved=20).text == CASED.text


def by_hand(text: str, known: dict[str, int]) -> list[str]:
    """Greedy longest match (Devlin et al., tokenization.py) of a word of letters."""
    out, start = [], 0
    while start < len(text):
        for stop in range(len(text), start, -1):
            piece = ("##" if start else "") + text[start:stop]
            if piece in known:
                out.append(piece)
                start = stop
                break
        else:
            return ["[UNK]"]
    return out


@given(st.text(alphabet="thecaBWlkingérdé", min_size=1, max_size=12))
def test_the_longest_match_of_each_word(word: str) -> None:
    plain = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
    for tokenizer, seen in ((UNCASED, plain), (CASED, word)):
        known = tokenizer.inner.get_vocab(with_added_tokens=False)
        assert [tokenizer.inner.id_to_token(int(i)) for i in tokenizer.encode(word)] == by_hand(seen, known)


@pytest.mark.parametrize("lowercase", [True, False])
def test_bert_of_transformers_gives_the_same(tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    ours = UNCASED if lowercase else CASED
    (tmp_path / "vocab.txt").write_text("".join(f"{ours.inner.id_to_token(i)}\n" for i in range(ours.vocab_size)))
    theirs = transformers.BertTokenizerLegacy(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)  # in Python
    for text in ["The CAT!", "café walking, 中文 talked", "unbelievable\tNAÏVE  x", "don't", "🙂 a\r\nb"]:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text).tolist(), text
    ours.save(tmp_path / "saved")
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.decode(saved("the cat")["input_ids"]) == "[CLS] the cat [SEP]"
    assert (saved.mask_token_id, saved.pad_token_id, saved.sep_token_id) == (ours.mask, ours.pad, ours.end)


def test_training_is_deterministic_whatever_the_order() -> None:
    assert train(TEXTS[::-1], 90, reserved=20, lowercase=True).text == UNCASED.text
    assert UNCASED.decode(UNCASED.encode("Walking, the CAT")) == "walking, the cat"


def test_the_commonest_letters_are_the_alphabet() -> None:
    made = train(["aaaa bbbb cccc dddd eeee " * 9 + "zqxj"], 28, reserved=4)  # room for 6 of 9 letters
    known = made.inner.get_vocab(with_added_tokens=False)
    assert {"a", "b", "c", "d", "e", "##e"} <= known.keys() and sum(one in known for one in "zqxj") == 1


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match=r"leave 1; expected 2 for 0 letters"):
        train(TEXTS, 257)
    with pytest.raises(UserError, match="the sample holds merges for"):
        train(["ab"], 5000, reserved=20)
