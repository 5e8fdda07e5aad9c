"""What a model is held against on the same text: token frequencies alone, and a general compressor."""

import lzma
import math
from collections.abc import Iterable, Sequence

import numpy as np


def unigram_bits_per_byte(train_counts: np.ndarray, held_out: Iterable[np.ndarray], size: int) -> float:
    """Bits a byte of a unigram model over the same tokens, counted on the training shards, add-one smoothed.

    `train_counts` [vocab], the document ends included; `held_out` ids of each document with its end; `size` in bytes.
    """
    p = (train_counts + 1) / (train_counts.sum() + len(train_counts))
    cost = -np.log(p)
    return float(sum(cost[ids].sum() for ids in held_out)) / math.log(2) / size


def xz_bits_per_byte(texts: Sequence[str]) -> float:
    """Bits a byte of `xz -9` over the texts in one stream."""
    data = "".join(texts).encode()
    return 8 * len(lzma.compress(data, preset=9)) / len(data)
