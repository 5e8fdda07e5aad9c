"""Oracle: what is taken over gives the ids of tiktoken, sentencepiece and tokenizers themselves, also on hard text."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.tokenizer import sentencepiece, tiktoken
from pretrain.tokenizer.bpe import train
from pretrain.tokenizer.fast import HARD
from pretrain.tokenizer.letters import bytes_of
from pretrain.tokenizer.splits import SPLITS, pattern
from pretrain.tokenizer.take_over import take_over

MUTANTS = [
    ("src/pretrain/tokenizer/tiktoken.py", "ignore_merges=True", "ignore_merges=False"),
    ("src/pretrain/tokenizer/tiktoken.py", "in sorted(found)]", "in found[::-1]]"),
    ("src/pretrain/tokenizer/sentencepiece.py", "-0.1 if", "-99.1 if"),
    ("src/pretrain/tokenizer/sentencepiece.py", "(-score[text], ids[text]", "(score[text], ids[text]"),
    ("src/pretrain/tokenizer/sentencepiece.py", "fuse_unk=True", "fuse_unk=False"),
    ("src/pretrain/tokenizer/sentencepiece.py", "model.named(CONTROL, UNKNOWN, BYTE)", "[]"),
    ("src/pretrain/tokenizer/sentencepiece.py", "    if model.tidy_spaces:", "    if not model.tidy_spaces:"),
    ("src/pretrain/tokenizer/sentencepiece.py", "    if model.charsmap:", "    if not model.charsmap:"),
]
theirs = pytest.importorskip("tiktoken", reason="the published implementation is not installed")
google = pytest.importorskip("sentencepiece", reason="the published implementation is not installed")
TEXTS = [
    "The cat sat; the hat's 1234 cats can't.\n\n  def f(x):\n\treturn x\r\n" * 4,
    "naïve 日本語 Москва 12 aaaaa foofoo\n" * 6,
]
SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>")
ODD = [*"abc the foo<tag> \n\t▁é日1'</s><unk><s><0x41>🙂ａ", "<unk>", "<0x41>", "<tag>", "foo", "cat", "<s>", "</s>"]


def rank_file(split: str) -> bytes:
    """Real ranks in a tiktoken file, with a token more that no merges lead to."""
    vocabulary = train(TEXTS * 5, 256 + 44 + 1, split=split, reserved=1).inner.get_vocab(with_added_tokens=False)
    tokens = [bytes_of(piece) for piece, _ in sorted(vocabulary.items(), key=lambda one: one[1])]
    return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate([*tokens, b"foofoo", b"Moscow"]))


RANKS = {split: tiktoken.ranks(rank_file(split), "") for split in SPLITS}
OURS = {split: tiktoken.tokenizer(rank_file(split), SPLITS[split], SPECIALS, "") for split in SPLITS}
THEIRS = {
    split: theirs.Encoding(
        "",
        pat_str=SPLITS[split],
        mergeable_ranks=table,
        special_tokens={name: len(table) + i for i, name in enumerate(SPECIALS)},
    )
    for split, table in RANKS.items()
}


@pytest.mark.parametrize("split", SPLITS)
@given(text=st.text() | st.text(alphabet="af' osM1\n\r\té"))
def test_ranks_give_the_ids_of_tiktoken(split: str, text: str) -> None:
    ids = OURS[split].encode(text).tolist()
    assert ids == THEIRS[split].encode_ordinary(text)
    assert OURS[split].decode_bytes(ids) == text.encode() == THEIRS[split].decode_bytes(ids)


@pytest.mark.parametrize("split", SPLITS)
def test_ranks_on_hard_text_and_with_other_digits(split: str) -> None:
    texts = [*HARD, *TEXTS, "Moscow"]
    assert [one.tolist() for one in OURS[split].encode_batch(texts)] == THEIRS[split].encode_ordinary_batch(texts)
    assert OURS[split].end == THEIRS[split].encode_single_token("<|end_of_text|>")
    single = tiktoken.tokenizer(rank_file(split), pattern(split, 1), (), "")
    other = theirs.Encoding("", pat_str=pattern(split, 1), mergeable_ranks=RANKS[split], special_tokens={})
    assert single.encode("in 1234 x5").tolist() == other.encode_ordinary("in 1234 x5")


KINDS: dict[str, dict[str, object]] = {
    "unigram": {"model_type": "unigram"},
    "unigram with bytes": {
        "model_type": "unigram",
        "byte_fallback": True,
        "vocab_size": 340,
        "character_coverage": 0.98,
    },
    "unigram with pieces of the user's": {"model_type": "unigram", "user_defined_symbols": ["<tag>", "foo", "cat"]},
    "bpe": {"model_type": "bpe", "character_coverage": 0.98},
    "llama": {  # Llama 2's settings
        **{"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "vocab_size": 360},
        **{"remove_extra_whitespaces": False, "split_digits": True, "character_coverage": 0.98},
    },
    "gemma": {  # Gemma's: no space before, runs of spaces and tags as pieces of their own
        **{"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "vocab_size": 370},
        **{"remove_extra_whitespaces": False, "add_dummy_prefix": False, "split_digits": True},
        "user_defined_symbols": ["\u2581\u2581", "\u2581\u2581\u2581", "<tag>", "\n"],
    },
}


def piece_file(**options: object) -> bytes:
    """A model that sentencepiece trains."""
    made, lines = io.BytesIO(), [line for text in TEXTS for line in text.split("\n")] * 3
    said = {"vocab_size": 80, "minloglevel": 2, "num_threads": 1, "hard_vocab_limit": False, **options}
    google.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=made, **said)
    return made.getvalue()


MODELS = {kind: piece_file(**options) for kind, options in KINDS.items()}
PIECES = {kind: sentencepiece.tokenizer(data, kind) for kind, data in MODELS.items()}
GOOGLE = {kind: google.SentencePieceProcessor(model_proto=data) for kind, data in MODELS.items()}


def same(kind: str, ids: list[int], google: list[int]) -> bool:
    """Equal, or for a unigram model the same pieces in an order of the same score: see docs/tokenizers.md."""
    return ids == google or ("unigram" in kind and sorted(ids) == sorted(google))


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.lists(st.sampled_from(ODD), max_size=30).map("".join))
def test_pieces_give_the_ids_of_sentencepiece(kind: str, text: str) -> None:
    """Also where the names of controls and bytes are written out."""
    assume("unigram" not in kind or not re.search("</?s>", text))  # see docs/tokenizers.md
    ids, google = PIECES[kind].encode(text).tolist(), GOOGLE[kind].encode(text)
    assert same(kind, ids, google)
    assert PIECES[kind].decode(ids) == GOOGLE[kind].decode(google)
    assert not PIECES[kind].specials & set(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_on_hard_text(kind: str) -> None:
    texts = [
        text for text in [*HARD, *TEXTS, "foo foofoo <tag>"] if "e\u0301\u0302" not in text
    ]  # see docs/tokenizers.md
    for ids, google in zip(PIECES[kind].encode_batch(texts), GOOGLE[kind].encode(texts), strict=True):
        assert same(kind, ids.tolist(), google) and PIECES[kind].decode(ids) == GOOGLE[kind].decode(google)
    assert (PIECES[kind].vocab_size, PIECES[kind].end) == (GOOGLE[kind].vocab_size(), GOOGLE[kind].eos_id())


def test_bytes_of_pieces_with_a_fallback() -> None:
    for kind in ("llama", "gemma"):
        text = "The  cats 🙂 Ж\u0000"
        assert PIECES[kind].decode_bytes(PIECES[kind].encode(text)).decode().removeprefix(" ") == text


def test_a_tokenizer_json_is_taken_over_with_its_own_end(tmp_path: Path) -> None:
    made = train(TEXTS, 320, reserved=20)
    made.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    said = {**config, "eos_token": "<|user|>", "auto_map": {"AutoTokenizer": "code.Tokenizer"}, "bos_token": "<|pad|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    found = take_over(str(tmp_path))
    assert found.text == made.text and found.end == made.id("<|user|>") and found.digest != made.digest
    found.save(tmp_path / "again")
    kept = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert kept["bos_token"] == "<|pad|>" and "auto_map" not in kept
    assert take_over(str(tmp_path / "again")).digest == found.digest


def test_files_are_known_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(rank_file("llama3"))  # as Llama 3 calls its ranks
    assert take_over(str(tmp_path), split=SPLITS["llama3"], specials=SPECIALS).digest == OURS["llama3"].digest
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "spiece.model").write_bytes(MODELS["bpe"])
    assert take_over(str(tmp_path)).digest == PIECES["bpe"].digest


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a word": (lambda: b"IQ== 0\nhello\n", r":2: 'hello' is no token and rank; expected base64, a space and a number"),
    "no base64": (lambda: b"IQ== 0\n%%% 1\n", r":2: '%%% 1' is no token and rank"),
    "few bytes": (lambda: b"IQ== 0\n", "255 of the 256 single bytes have no rank"),
    "a hole": (lambda: rank_file("gpt2").replace(b" 301\n", b" 333\n"), "ranks are not 0, 1, 2"),
    "an image": (lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no SentencePiece model"),
    "cut off": (lambda: MODELS["bpe"][:400], "no SentencePiece model"),
    "nothing": (lambda: b"", "no SentencePiece model: it holds no pieces"),
    "words": (lambda: piece_file(model_type="word", vocab_size=12), "a model of words or characters"),
    "half a json": (lambda: b'{"model": 1', r"no readable tokenizer\.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_none_is_said_in_a_line(case: str, tmp_path: Path) -> None:
    make, said = BAD[case]
    file = tmp_path / "some.file"
    file.write_bytes(make())
    with pytest.raises(UserError) as caught:
        take_over(str(file), split=SPLITS["gpt2"])
    assert caught.match(said) and "\n" not in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tiktoken").write_bytes(rank_file("gpt2"))
    with pytest.raises(UserError, match=r"a\.tiktoken: tiktoken ranks name no pattern"):
        take_over(str(tmp_path))
    with pytest.raises(UserError, match="holds a name twice, or one that is a token"):
        take_over(str(tmp_path), split=SPLITS["gpt2"], specials=["<a>", "<a>"])
    with pytest.raises(UserError, match=r"no tokenizer\.json, tokenizer\.model"):
        take_over(str(tmp_path / "nowhere"))
    train(TEXTS, 320, reserved=20).save(tmp_path / "json")
    with pytest.raises(UserError, match="names its own specials"):
        take_over(str(tmp_path / "json"), specials=["<a>"])
