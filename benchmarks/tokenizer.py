"""Every encoder and trainer beside ours on one text, in one run: MB/s, and whether the ids are the same.

    pip install -e ".[fast]" rustbpe bpeasy tokie
    python benchmarks/tokenizer.py FILE … [--vocab 16384] [--megabytes 16] [--times 5]

Texts are passages of 4,000 characters, in batches of 256 as the tokens stage encodes them; encoders take turns, and the
first turn, on texts not seen before, is told apart: gigatoken and tokenizers remember pieces. What is not installed is
left out.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pretrain.tokenizer import fast
from pretrain.tokenizer.bpe import train
from pretrain.tokenizer.letters import bytes_of
from pretrain.tokenizer.splits import SPLITS
from pretrain.tokenizer.tokenizer import Tokenizer

TOGETHER, PASSAGE, RESERVED = 256, 4000, 256
Trained = dict[bytes, int]


def passages(files: Iterable[str], megabytes: float) -> list[str]:
    out, size = [], 0
    for file in files:
        text = Path(file).read_text("utf-8", "replace")
        for start in range(0, len(text), PASSAGE):
            if size >= megabytes * 1e6:
                return out
            out.append(text[start : start + PASSAGE])
            size += len(out[-1].encode())
    return out


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def installed(make: Callable[[], fast.Encode]) -> fast.Encode | None:
    try:
        return make()
    except Exception as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def encoders(ours: Tokenizer, served: Tokenizer, texts: list[str]) -> Iterator[tuple[str, fast.Encode | None]]:
    yield f"ours ({served.encoder} serves)", lambda texts: served.encode_batch(texts)
    yield "tokenizers", lambda texts: ours.encode_batch(texts)
    for name, make in fast.ENCODERS.items():
        yield f"{name}, bare", installed(lambda make=make: make(ours.text))
    yield "tokie", installed(lambda: tokie(ours))
    yield "rustbpe", installed(lambda: rustbpe_encoder(texts, ours.vocab_size - RESERVED))


def tokie(ours: Tokenizer) -> fast.Encode:
    import tokie as library

    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        made = library.Tokenizer.from_json(f"{folder}/tokenizer.json")
    return lambda texts: [np.array(one.ids, np.int32) for one in made.encode_batch(texts, add_special_tokens=False)]


def rustbpe_encoder(texts: list[str], vocab: int) -> fast.Encode:
    """It encodes with what it trained alone, so its ids are others where its merges are."""
    import rustbpe

    made = rustbpe.Tokenizer()
    made.train_from_iterator(iter(texts), vocab, pattern=SPLITS["llama3"])
    return lambda batch: [np.array(ids, np.int32) for ids in made.batch_encode(batch)]


def trainers(vocab: int) -> Iterator[tuple[str, Callable[[list[str]], Trained]]]:
    def ours(texts: list[str]) -> Trained:
        made = train(texts, vocab + RESERVED)
        return {bytes_of(piece): i for piece, i in made.inner.get_vocab(with_added_tokens=False).items()}

    def rust(texts: list[str]) -> Trained:
        import rustbpe

        made = rustbpe.Tokenizer()
        made.train_from_iterator(iter(texts), vocab, pattern=SPLITS["llama3"])
        return {bytes(token): rank for token, rank in made.get_mergeable_ranks()}

    def easy(texts: list[str]) -> Trained:
        import bpeasy

        return bpeasy.train_bpe(iter(texts), SPLITS["llama3"], 128, vocab)

    yield "ours (tokenizers' trainer)", ours
    yield "rustbpe", rust
    yield "bpeasy", easy


def show_training(texts: list[str], vocab: int, size: float) -> None:
    truth: Trained = {}
    for name, work in trainers(vocab):
        start = time.perf_counter()
        try:
            found = work(texts)
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        truth = truth or found
        other = sum(found.get(token) != rank for token, rank in truth.items())
        same = "the same" if not other else f"{other} of {len(truth)} ids differ, {len(truth.keys() - found)} tokens"
        print(f"train   {name:<28} {size / seconds:8.1f} MB/s   {same}")


def show_encoding(texts: list[str], ours: Tokenizer, size: float, times: int) -> None:
    served, why = ours.faster(texts[:64])
    print(why)
    batches = [texts[i : i + TOGETHER] for i in range(0, len(texts), TOGETHER)]
    truth = [ids for batch in batches for ids in ours.encode_batch(batch)]
    every = [(name, encode) for name, encode in encoders(ours, served, texts) if encode is not None]
    seconds: dict[str, list[float]] = {name: [] for name, _ in every}
    for _ in range(times + 1):
        for name, encode in every:
            seconds[name].append(timed(lambda encode=encode: [encode(batch) for batch in batches]))
    for name, encode in every:
        found = [ids for batch in batches for ids in encode(batch)]
        wrong = sum(not np.array_equal(a, b) for a, b in zip(truth, found, strict=True))
        first, again = seconds[name][0], statistics.median(seconds[name][1:])
        same = "the same" if not wrong else f"{wrong} of {len(truth)} texts differ"
        print(f"encode  {name:<28} {size / again:8.1f} MB/s   first {size / first:8.1f}   {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    texts = passages(arguments.files, arguments.megabytes)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} texts, {size:.1f} MB, {os.cpu_count()} cores")
    show_training(texts, arguments.vocab, size)
    ours = train(texts, arguments.vocab + RESERVED)
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        show_encoding(texts, Tokenizer.load(folder), size, arguments.times)


if __name__ == "__main__":
    main()
