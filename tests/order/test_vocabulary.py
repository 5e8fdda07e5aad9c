"""Oracle and closed form: where words lie, beside a regular expression and beside WordPiece's own word numbers."""

import re

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from pretrain.order.batch import Vocabulary
from pretrain.order.vocabulary import vocabulary
from pretrain.tokenizer.bpe import characters, train
from pretrain.tokenizer.tokenizer import Tokenizer

MUTANTS = [
    ("src/pretrain/order/vocabulary.py", "_in_word(text[-1:])", "_in_word(text[:1])"),
    ("src/pretrain/order/vocabulary.py", 'in "WF"', 'in "X"'),
    ("src/pretrain/order/vocabulary.py", "p.startswith(prefix)", "not p.startswith(prefix)"),
    ("src/pretrain/order/vocabulary.py", 'or character in "_', 'or character in "'),
    ("src/pretrain/order/vocabulary.py", "if piece is None)", "if not piece and False)"),
]
BYTES = train(
    ["def area_of(radius):\n    return 3.14 * radius ** 2\n" * 5, "naïve café, déjà vu\n" * 5], 316, reserved=20
)
KNOWN = vocabulary(BYTES, 340)


PARTS = st.sampled_from(
    ["radius", " radius", "re", " area", "_of", " ** ", "café", "é", ", ", "3", "(", "\n    return"]
)


@given(st.lists(PARTS | st.sampled_from("abe _é3(.\n"), max_size=12).map("".join))
def test_words_of_byte_level_pieces_are_a_regular_expressions(text: str) -> None:
    ids = BYTES.encode(text)
    assert KNOWN.joins is not None
    ends = np.cumsum([len(BYTES.decode_bytes([i])) for i in ids])
    raw, inside = text.encode(), set[int]()
    for found in re.finditer(r"\w+", text):
        start, stop = (len(text[:at].encode()) for at in found.span())
        inside |= set(range(start + 1, stop))
    for i in range(1, len(ids)):
        joined = bool(KNOWN.joins[0, ids[i]] and KNOWN.joins[1, ids[i - 1]])
        assert joined == (int(ends[i - 1]) in inside), (raw, i)


def test_word_pieces_say_it_themselves() -> None:
    pieces = ["[UNK]", "[MASK]", "un", "##a", "##ble", "cat", ",", "[SEP]"]
    inner = tokenizers.Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    inner.add_special_tokens(["[UNK]", "[MASK]", "[SEP]"])
    known = vocabulary(Tokenizer(inner))
    found = inner.encode("unable cat, cat una", add_special_tokens=False)
    assert known.joins is not None and known.mask == 1 and known.specials == {0, 1, 7}
    left, right = known.joins[0], known.joins[1]
    pairs = list(zip(found.ids, found.ids[1:], found.word_ids, found.word_ids[1:], strict=False))
    assert [bool(left[b] and right[a]) for a, b, _, _ in pairs] == [v == w for _, _, v, w in pairs]


def test_wide_characters_are_words_and_spaces_may_be_written_otherwise() -> None:
    made = characters(["ab ▁漢字_"], reserved=4)
    known = vocabulary(made)
    assert known.joins is not None
    joins = {c: tuple(known.joins[:, made.encode(c)[0]].tolist()) for c in "ab ▁漢字_"}
    assert joins == {"a": (True,) * 2, "b": (True,) * 2, "_": (True,) * 2} | dict.fromkeys(" ▁漢字", (False,) * 2)


def test_ids_have_their_places() -> None:
    assert KNOWN.size == 340 and KNOWN.end == BYTES.end and KNOWN.mask == BYTES.id("<|mask|>")
    assert KNOWN.fim == tuple(BYTES.id(f"<|fim_{name}|>") for name in ("prefix", "suffix", "middle"))
    assert KNOWN.specials == BYTES.specials | set(range(BYTES.vocab_size, 340))
    assert vocabulary(train(["abc" * 9], 260, reserved=2)).fim is None


def test_ordinary_ids_are_all_alike() -> None:
    known = Vocabulary(10, specials=frozenset({0, 4, 9}))
    u = ((np.arange(7000) + 0.5) / 7000).astype(np.float32)
    assert np.array_equal(np.bincount(known.ordinary(u)), [0, 1000, 1000, 1000, 0, 1000, 1000, 1000, 1000])
    assert known.ordinary(np.float32([1 - 2**-24]))[0] == 8
    assert known.is_special(np.array([[0, 1], [9, 4]])).tolist() == [[True, False], [True, True]]
    with pytest.raises(IndexError):
        known.is_special(np.array([10]))
