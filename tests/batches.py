"""Batches of random documents, for tests of objectives."""

from dataclasses import replace

import numpy as np

from pretrain.order.batch import Batch, Vocabulary

SIZE, END, MASK, FIM = 40, 32, 33, (34, 35, 36)  # ids below 32 stand for text
VOCABULARY = Vocabulary(SIZE, END, MASK, frozenset(range(32, SIZE)), FIM)


def batch(samples: int, sequence: int, *, seed: int = 0, mean: int = 20, first: int = 0) -> Batch:
    """Samples of documents of about `mean` tokens, each ended; a target's weight tells which token it is."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=first))
    whole = draw.integers(0, 32, (samples, sequence + 1))
    whole[draw.random(whole.shape) < 1 / mean] = END
    documents = np.cumsum(np.pad(whole[:, :-1] == END, ((0, 0), (1, 0))), 1)
    return Batch(
        tokens=whole[:, :-1],
        targets=whole[:, 1:],
        weights=weight(whole[:, 1:]),
        documents=documents[:, :-1].astype(np.int32),
        rows=np.arange(first, first + samples),
        positions=np.broadcast_to(np.arange(sequence), (samples, sequence))[..., None],
        seed=seed,
        sources=tuple("code" if i % 2 else "prose" for i in range(samples)),
    )


def padded(samples: int, sequence: int) -> Batch:
    """The same with a last quarter that is padding, by an id that stands for text, of a document of its own."""
    made, stop = batch(samples, sequence), sequence - sequence // 4
    place = np.arange(sequence)
    return replace(
        made,
        tokens=np.where(place >= stop, 0, made.tokens),
        targets=np.where(place >= stop - 1, 0, made.targets),
        weights=np.where(place >= stop - 1, 0, made.weights),
        documents=np.where(place >= stop, 99, made.documents).astype(np.int32),
    )


def weight(tokens: np.ndarray) -> np.ndarray:
    """A weight that no two ids share."""
    return (1 + tokens / 64).astype(np.float32)


def chi_square(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """The statistic in standard deviations above its mean (Wilson & Hilferty 1931): over 4 is one in 30,000."""
    counts = np.asarray(counts, np.float64).ravel()
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5)
