"""Trains tokenizers: byte-level BPE (Sennrich et al. 2016, Radford et al. 2019), or a token a character."""

from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from pretrain.base.errors import UserError
from pretrain.tokenizer.tokenizer import DOCUMENT_END, PAD, Tokenizer

BPE_VERSION = 1  # of what these functions make of a text
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

SPLITS = {  # published patterns; text is cut by them before merges are learned or applied
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
NAMED = (
    *(DOCUMENT_END, PAD, "<|mask|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool_call|>", "<|tool_result|>"),
    *(
        "<|think|>",
        "<|/think|>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|image|>",
        "<|audio|>",
        "<|video|>",
    ),
)


def specials(reserved: int) -> list[str]:
    """Names of the ids at the end of a vocabulary: roles and media to come, then numbers."""
    return [*NAMED[:reserved], *(f"<|reserved_{i}|>" for i in range(len(NAMED), reserved))]


def train(texts: Iterable[str], vocab_size: int, *, split: str = "llama3", reserved: int = 256) -> Tokenizer:
    """Byte-level BPE of `vocab_size` ids, the last `reserved` of them specials; exact both ways over any Unicode.

    The merges depend on the counts of the pieces alone, not on their order or the number of threads. Raises UserError
    where the vocabulary has no room for the 256 bytes, or the texts too few merges to fill it.
    """
    merged = vocab_size - reserved
    if merged < 256:
        raise UserError(
            f"{vocab_size} ids less {reserved} reserved leave {merged}", expected="256 for the bytes, or more"
        )
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=False))
    pattern = pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pattern, byte_level])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=merged, initial_alphabet=sorted(alphabet), show_progress=False)
    inner.train_from_iterator(texts, trainer)
    found = inner.get_vocab_size()
    if found < merged:
        what = f"the sample holds merges for {found} ids only"
        raise UserError(what, expected=f"tokenizer.vocab_size = {found + reserved} or less, or more text")
    inner.add_special_tokens(specials(reserved))
    return Tokenizer(inner)


def characters(texts: Iterable[str], *, reserved: int = 256) -> Tokenizer:
    """A token a character seen, in code-point order, and one for any other; then the specials."""
    seen = sorted({character for text in texts for character in text} - {UNKNOWN})
    vocabulary = {character: i for i, character in enumerate([*seen, UNKNOWN])}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(specials(reserved))
    return Tokenizer(inner)
