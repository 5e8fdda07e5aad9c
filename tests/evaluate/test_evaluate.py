"""Closed form and twin: likelihood of a uniform model and token by token; baselines by hand; what is a function."""

import lzma
import math

import numpy as np
import pytest
import torch

from pretrain.base.extension import find
from pretrain.evaluate.baselines import unigram_bits_per_byte, xz_bits_per_byte
from pretrain.evaluate.perplexity import likelihood, windows
from pretrain.model.folder import make
from pretrain.model.weights import initialise
from pretrain.tokenizer.bpe import train

MUTANTS = [
    ("src/pretrain/evaluate/perplexity.py", "scored[i, first - 1 :", "scored[i, first :"),
    ("src/pretrain/evaluate/perplexity.py", "done + stride", "done + sequence"),
]
TOKENIZER = train(["the cat sat on the mat, and that was that. " * 20], 256 + 20 + 4, reserved=4)
llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=280,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
)
TEXTS = ["the cat", "", "naïve mat " * 7, "x"]


def model(std: float) -> torch.nn.Module:
    made = make(llama, CONFIG)
    initialise(made, llama.weights(CONFIG), std, 0)
    return made


def test_a_uniform_model_pays_log_vocabulary_a_token() -> None:
    flat = model(0.0)
    found = likelihood(flat, TOKENIZER, TEXTS, sequence=16)
    tokens = sum(len(TOKENIZER.encode(text)) + 1 for text in TEXTS)
    assert (found.tokens, found.bytes, found.documents) == (tokens, sum(len(t.encode()) for t in TEXTS), 4)
    assert found.nats_per_token == pytest.approx(math.log(280), rel=1e-6) and found.perplexity == pytest.approx(
        280, rel=1e-4
    )
    assert found.bits_per_byte == pytest.approx(tokens * math.log2(280) / found.bytes, rel=1e-6)


def test_token_by_token_comes_to_the_same() -> None:
    made, sequence, nats = model(0.4), 200, 0.0
    for text in TEXTS:
        ids = [TOKENIZER.end, *TOKENIZER.encode(text).tolist(), TOKENIZER.end]
        for i in range(1, len(ids)):
            logits = made.logits(torch.tensor([ids[:i]]))[0, -1]  # type: ignore[operator]
            nats -= float(logits.log_softmax(-1)[ids[i]].detach())
    assert likelihood(made, TOKENIZER, TEXTS, sequence=sequence).nats == pytest.approx(nats, rel=1e-5)
    limited = likelihood(made, TOKENIZER, TEXTS, sequence=sequence, limit_bytes=5)
    assert limited.documents == 1


@pytest.mark.parametrize("length", [1, 2, 8, 9, 10, 12, 13, 40])
def test_windows_score_every_id_once_with_half_a_window_before_it(length: int) -> None:
    ids, scored = list(range(length)), []
    for window, first in windows(ids, 8):
        assert len(window) <= 9 and (first >= 4 or window[0] == 0)
        scored += window[first:]
    assert scored == ids[1:]


def test_baselines_by_hand() -> None:
    counts = np.array([3, 0, 5])
    p = np.array([4, 1, 6]) / 11
    held = [np.array([0, 2]), np.array([1])]
    expected = -(np.log2(p[0]) + np.log2(p[2]) + np.log2(p[1])) / 7
    assert unigram_bits_per_byte(counts, held, 7) == pytest.approx(expected)
    assert xz_bits_per_byte(["ab" * 50, "é"]) == 8 * len(lzma.compress(("ab" * 50 + "é").encode(), preset=9)) / 102


def test_what_counts_as_a_function() -> None:
    task = find("evaluate.tasks", "python_syntax")
    whole = task.first_function("def f(x):\n    return x\n\nimport os\n", True)
    assert whole == "def f(x):\n    return x\n\n" and task.parses(whole)
    cut = task.first_function("def f(x):\n    y = x\n    return (", False)
    assert cut == "def f(x):\n    y = x\n" and task.parses(cut)
    assert not task.parses("def f(x):\n") and not task.parses("x = 1\n") and not task.parses("def f(:\n    pass\n")
    assert not task.parses("def f():\n    return '\0'\n")
