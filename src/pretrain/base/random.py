"""Randomness as a function: of a seed, a tag and a position, never of what was drawn before.

Keys are xxh3-64 of the seed and the tag; numbers are splitmix64 (Steele, Lea & Flood 2014) of key and counter;
permutations are Feistel networks (Luby & Rackoff 1988) that walk the cycle until they land inside the range
(Black & Rogaway 2002).
"""

from typing import TypeVar

import numpy as np
import xxhash

Integers = TypeVar("Integers", int, np.ndarray)
Word = np.ndarray  # of uint64
ROUNDS = 6  # of the Feistel network: 4 make it indistinguishable, small ranges want a little more


def key(seed: int, *tag: str | int) -> int:
    """64 bits that name a stream of random numbers."""
    return xxhash.xxh3_64_intdigest("\0".join(map(str, (seed, *tag))).encode())


def generator(seed: int, *tag: str | int) -> np.random.Generator:
    """A numpy generator (Philox) of its own for a seed and a tag."""
    return np.random.Generator(np.random.Philox(key=key(seed, *tag)))


def splitmix(x: Word) -> Word:
    """A bijection of 64-bit words whose outputs look random."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, rows: np.ndarray, tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 in [0, 1) of shape [rows, *shape]; a row's numbers depend on the seed, the tag and its number alone."""
    start = splitmix(np.asarray(rows).astype(np.uint64) ^ np.uint64(key(seed, tag)))
    counter = np.arange(int(np.prod(shape)), dtype=np.uint64)
    bits = splitmix(start[:, None] + counter[None, :] * np.uint64(0xD1342543DE82EF95))
    return ((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(len(start), *shape)


def permute(i: Integers, n: int | np.ndarray, seed: int, *tag: str | int) -> Integers:
    """Where `i` goes under a keyed bijection of range(n), n < 2**62; vectorised over `i`, and over `n` if an array."""
    return _walk(i, n, key(seed, *tag), range(ROUNDS))


def unpermute(i: Integers, n: int | np.ndarray, seed: int, *tag: str | int) -> Integers:
    """The inverse of `permute` under the same key."""
    return _walk(i, n, key(seed, *tag), range(ROUNDS - 1, -1, -1))


def permute_keyed(i: np.ndarray, n: np.ndarray, keys: Word) -> np.ndarray:
    """`permute` with a key of its own for every element: int64 [k], int64 [k], uint64 [k] -> int64 [k]."""
    return _walk_array(np.asarray(i, np.int64), np.asarray(n, np.int64), np.asarray(keys, np.uint64), range(ROUNDS))


def unpermute_keyed(i: np.ndarray, n: np.ndarray, keys: Word) -> np.ndarray:
    """The inverse of `permute_keyed` under the same keys."""
    rounds = range(ROUNDS - 1, -1, -1)
    return _walk_array(np.asarray(i, np.int64), np.asarray(n, np.int64), np.asarray(keys, np.uint64), rounds)


def _walk(i: Integers, n: int | np.ndarray, word: int, rounds: range) -> Integers:
    flat = np.atleast_1d(np.asarray(i, np.int64))
    sizes = np.broadcast_to(np.asarray(n, np.int64), flat.shape)
    out = _walk_array(flat, sizes, np.broadcast_to(np.uint64(word), flat.shape), rounds)
    return int(out[0]) if isinstance(i, (int, np.integer)) else out.reshape(np.shape(i))


def _walk_array(i: np.ndarray, n: np.ndarray, keys: Word, rounds: range) -> np.ndarray:
    if ((i < 0) | (i >= n)).any():
        raise ValueError("an index outside range(n) has no place in a permutation")
    # Half the bits that n - 1 needs, rounded up, at least one: the network's domain is at most 4 times the range.
    half = np.maximum((np.frexp((n - 1).astype(np.float64))[1] + 1) // 2, 1).astype(np.uint64)
    out = _feistel(i.astype(np.uint64), half, keys, rounds)
    outside = np.flatnonzero(out >= n.astype(np.uint64))
    while outside.size:
        out[outside] = _feistel(out[outside], half[outside], keys[outside], rounds)
        outside = outside[out[outside] >= n[outside].astype(np.uint64)]
    return out.astype(np.int64)


def _feistel(x: Word, half: Word, keys: Word, rounds: range) -> Word:
    """One pass over `2 * half` bits; the rounds run backwards for the inverse."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    forward = rounds.step > 0
    for number in rounds:
        tweak = splitmix(keys + np.uint64(number))
        if forward:
            left, right = right, left ^ (splitmix(right ^ tweak) & mask)
        else:
            left, right = right ^ (splitmix(left ^ tweak) & mask), left
    return (left << half) | right
