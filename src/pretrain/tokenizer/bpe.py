"""Trains tokenizers: byte-level BPE (Sennrich et al. 2016, Radford et al. 2019), or a token a character."""

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from pretrain.base.errors import UserError
from pretrain.tokenizer.specials import specials
from pretrain.tokenizer.splits import pattern
from pretrain.tokenizer.tokenizer import Tokenizer

BPE_VERSION = 2  # of what is made of a sample, and of what is sampled
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    split: str = "llama3",
    digits: str | int = "pattern",
    reserved: int = 256,
    own: Sequence[str] = (),
    multiple: int = 1,
) -> Tokenizer:
    """Byte-level BPE of `vocab_size` ids, the last `reserved` of them specials; exact both ways over any Unicode.

    The merges depend on the counts of the pieces alone, not on their order or the number of threads. Raises UserError
    where the vocabulary has no room for the 256 bytes, or the texts too few merges to fill it.
    """
    names = specials(vocab_size, reserved, own=own, multiple=multiple)
    merged = room(vocab_size, reserved, 256, "for the bytes")
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=False))
    inner.pre_tokenizer = byte_level(pattern(split, digits))
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=merged, initial_alphabet=sorted(alphabet), show_progress=False)
    inner.train_from_iterator(texts, trainer)
    enough(inner, merged, reserved)
    inner.add_special_tokens(names)
    return Tokenizer(inner)


def byte_level(split: str) -> pre_tokenizers.PreTokenizer:
    """Text cut by a pattern, each piece written in letters that are bytes."""
    cut = pre_tokenizers.Split(Regex(split), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def room(vocab_size: int, reserved: int, least: int, what_for: str) -> int:
    """Ids that are left for text. Raises UserError where that is too few."""
    left = vocab_size - reserved
    if left < least:
        raise UserError(
            f"{vocab_size} ids less {reserved} reserved leave {left}", expected=f"{least} {what_for}, or more"
        )
    return left


def enough(inner: tokenizers.Tokenizer, merged: int, reserved: int) -> None:
    """Raises UserError where the sample was too small to fill the vocabulary."""
    found = inner.get_vocab_size()
    if found < merged:
        what = f"the sample holds merges for {found} ids only"
        raise UserError(what, expected=f"tokenizer.vocab_size = {found + reserved} or less, or more text")


def characters(
    texts: Iterable[str],
    *,
    reserved: int = 256,
    own: Sequence[str] = (),
    multiple: int = 1,
    byte_fallback: bool = False,
) -> Tokenizer:
    """A token a character seen, in code-point order, and one for any other; then the specials.

    With `byte_fallback` any other character is its UTF-8 bytes, ids 0 to 255, and text is exact both ways.
    """
    seen = sorted({character for text in texts for character in text} - {UNKNOWN})
    first = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    rest = [] if byte_fallback else [UNKNOWN]
    vocabulary = {piece: i for i, piece in enumerate([*first, *seen, *rest])}
    if byte_fallback:
        inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
        inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    else:
        inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        inner.decoder = decoders.Fuse()
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.add_special_tokens(specials(len(vocabulary) + reserved, reserved, own=own, multiple=multiple))
    return Tokenizer(inner)
