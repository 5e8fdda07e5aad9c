"""Documents become tokens on disk."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Document
from pretrain.shards.write import ShardWriter
from pretrain.tokenizer.tokenizer import Tokenizer

TOGETHER = 256  # documents encoded in one call, on all cores


def tokenize(
    cut: Cut,
    source: str,
    tokenizer: Tokenizer,
    folder: Path,
    shard_tokens: int,
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Writes the training documents of a source as shards, in stored order."""
    writer = ShardWriter(folder, vocab_size=tokenizer.vocab_size, shard_tokens=shard_tokens, end=tokenizer.end)
    for some in _groups(cut.documents("train", source)):
        for document, tokens in zip(some, tokenizer.encode_batch([one.text for one in some]), strict=True):
            writer.add(document.id, tokens)
        advance(len(some))
    writer.close()


def _groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while some := list(islice(documents, TOGETHER)):
        yield some
