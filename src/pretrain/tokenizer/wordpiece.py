"""Trains WordPiece (Schuster & Nakajima 2012) with the normalisation of BERT (Devlin et al. 2018, arXiv 1810.04805)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from pretrain.tokenizer.bpe import enough, room
from pretrain.tokenizer.specials import NAMED, specials
from pretrain.tokenizer.tokenizer import Tokenizer

UNKNOWN, CLASS, SEPARATOR, PAD, MASK = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"  # as BERT's checkpoints name them
LETTERS = 1000  # of the alphabet, the commonest; BERT's limit too


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    lowercase: bool = False,
    reserved: int = 256,
    own: Sequence[str] = (),
    multiple: int = 1,
) -> Tokenizer:
    """WordPiece of `vocab_size` ids: [UNK], letters alone and inside words, pieces, and `reserved` specials.

    `texts` is gone through twice, for the letters and for the pieces; an iterator is held in memory. `lowercase` also
    takes the accents off, as BERT's uncased models do. Raises UserError where the vocabulary or the sample is small.
    """
    names = specials(vocab_size, reserved, own=own, multiple=multiple, named=(SEPARATOR, PAD, MASK, CLASS, *NAMED[3:]))
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    texts = list(texts) if isinstance(texts, Iterator) else texts
    counts = Counter[str]()
    for text in texts:
        counts.update(Counter(normalizer.normalize_str(text)))
    ranked = sorted((letter for letter in counts if not letter.isspace()), key=lambda one: (-counts[one], one))
    alphabet = sorted(ranked[: min(LETTERS, (vocab_size - reserved) // 4)])
    base = [UNKNOWN, *alphabet, *(f"##{letter}" for letter in alphabet)]  # all said, since the trainer finds them
    merged = room(vocab_size, reserved, len(base) + 1, f"for {len(alphabet)} letters, alone and inside words")
    inner = tokenizers.Tokenizer(models.WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))  # in any order
    inner.normalizer, inner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=merged, special_tokens=base, limit_alphabet=0, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    enough(inner, merged, reserved)
    made = tokenizers.Tokenizer(models.WordPiece(inner.get_vocab(), unk_token=UNKNOWN, max_input_chars_per_word=100))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, inner.pre_tokenizer, decoders.WordPiece()
    made.add_special_tokens(names)
    last, first = made.token_to_id(SEPARATOR), made.token_to_id(CLASS)
    if last is not None and first is not None:
        made.post_processor = processors.BertProcessing((SEPARATOR, last), (CLASS, first))
    return Tokenizer(made, {"mask_token": MASK, "sep_token": SEPARATOR, "cls_token": CLASS, "unk_token": UNKNOWN})
