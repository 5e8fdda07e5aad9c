"""Takes over SentencePiece models (Kudo & Richardson 2018, arXiv 1808.06226): unigram and BPE, as a tokenizer.json.

The model is one protobuf message: `sentencepiece_model.proto` in the library's repository names the numbers.
"""

import re
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from pretrain.base.errors import UserError
from pretrain.tokenizer.protobuf import fields
from pretrain.tokenizer.tokenizer import Tokenizer

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2


@dataclass(frozen=True)
class Piece:
    """A row of the vocabulary."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class Model:
    """What a .model file says, as far as ids depend on it."""

    pieces: list[Piece]
    kind: int
    end: str | None
    unknown: str  # what an unknown piece is decoded to
    charsmap: bytes
    dummy_prefix: bool
    tidy_spaces: bool

    @property
    def byte_fallback(self) -> bool:
        """Whether characters without a piece become bytes."""
        return any(piece.kind == BYTE for piece in self.pieces)

    def named(self, *kinds: int) -> list[str]:
        """Pieces of some kinds."""
        return [piece.text for piece in self.pieces if piece.kind in kinds]


def parse(data: bytes, where: str) -> Model:
    """Raises UserError for what is no SentencePiece model, or one that cannot be taken over with the same ids."""
    try:
        top = list(fields(data))
        pieces = [_piece(_raw(value)) for number, value in top if number == 1]
        trainer, normalizer = (dict(fields(_raw(dict(top).get(number, b"")))) for number in (2, 3))
        charsmap, unknown = _raw(normalizer.get(2, b"")), _raw(trainer.get(44, " \u2047 ".encode())).decode()
        if not pieces:
            raise ValueError("it holds no pieces")
    except (ValueError, KeyError) as error:
        expected = "a tokenizer.json, tiktoken ranks or a SentencePiece model"
        raise UserError(f"no SentencePiece model: {error}", where=where, expected=expected) from None
    end = int(trainer.get(42, 2))
    model = Model(
        pieces,
        int(trainer.get(3, UNIGRAM)),
        pieces[end].text if end < len(pieces) and pieces[end].kind == CONTROL else None,
        unknown,
        charsmap,
        dummy_prefix=bool(normalizer.get(3, 1)),
        tidy_spaces=bool(normalizer.get(4, 1)),
    )
    for odd, what in (
        (model.kind not in (UNIGRAM, BPE), "a model of words or characters"),
        (bool(model.named(UNUSED)), "unused pieces"),
        (not normalizer.get(5, 1), "spaces that are not escaped"),
        (bool(trainer.get(24, 0)), "spaces at the ends of words"),
        (model.kind == BPE and model.dummy_prefix and bool(model.named(USER)), "pieces of the user's after a prefix"),
    ):
        if odd:
            raise UserError(f"{what} cannot be taken over with the same ids", where=where)
    return model


def _piece(data: bytes) -> Piece:
    values = dict(fields(data))
    return Piece(_raw(values[1]).decode(), float(values.get(2, 0.0)), int(values.get(3, NORMAL)))


def _raw(value: int | float | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a text should be")
    return value


def tokenizer(data: bytes, where: str) -> Tokenizer:
    """The ids that SentencePiece itself gives, with nothing added; control pieces are never found in text."""
    model = parse(data, where)
    inner = tokenizers.Tokenizer(_unigram(model) if model.kind == UNIGRAM else _merges(model))
    inner.normalizer = normalizers.Sequence(_normalizers(model))
    if model.kind == UNIGRAM:
        inner.pre_tokenizer = _cuts(model)
    elif user := model.named(USER):
        inner.add_tokens([AddedToken(text, normalized=True, special=False) for text in user])
    strip = [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []
    unknown = [decoders.Replace(name, model.unknown) for name in model.named(UNKNOWN)]
    inner.decoder = decoders.Sequence(
        [*unknown, decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    inner.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in model.named(CONTROL)])
    return Tokenizer(inner, {} if model.end is None else {"eos_token": model.end})


def _normalizers(model: Model) -> list[normalizers.Normalizer]:
    out: list[normalizers.Normalizer] = []
    if model.charsmap:
        out.append(normalizers.Precompiled(model.charsmap))
    if model.tidy_spaces:
        out += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.dummy_prefix:
        out.append(normalizers.Prepend(SPACE))
    return [*out, normalizers.Replace(" ", SPACE)]


def _unigram(model: Model) -> models.Unigram:
    """A piece of the user's scores -0.1, above any other, as in the library (its best score starts from nought)."""
    scores = [(piece.text, -0.1 if piece.kind == USER else piece.score) for piece in model.pieces]
    unknown = [i for i, piece in enumerate(model.pieces) if piece.kind == UNKNOWN]
    return models.Unigram(scores, unk_id=unknown[0] if unknown else None, byte_fallback=model.byte_fallback)


def _cuts(model: Model) -> pre_tokenizers.PreTokenizer:
    """Cuts the names of controls and bytes after their first letter, so that no text is taken for one."""
    names = [name for name in model.named(CONTROL, UNKNOWN, BYTE) if len(name) > 1]
    inside = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
    return pre_tokenizers.Split(Regex(inside or r"\z"), behavior="merged_with_previous")


def _merges(model: Model) -> models.BPE:
    """Every pair of pieces that makes a piece, the best score first."""
    ids = {piece.text: i for i, piece in enumerate(model.pieces)}
    score = {piece.text: piece.score for piece in model.pieces if piece.kind in (NORMAL, USER)}
    found = []
    for text in score:
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        found += [(-score[text], ids[text], ids[a], ids[b], a, b) for a, b in pairs if a in ids and b in ids]
    pairs = [(a, b) for *_, a, b in sorted(found)]
    unknown = next(iter(model.named(UNKNOWN)), None)
    return models.BPE(ids, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
