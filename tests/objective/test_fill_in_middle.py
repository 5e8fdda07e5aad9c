"""Property and closed form: every piece comes back from its rearrangement; rates, cuts and lengths are exact."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches import END, FIM, SIZE, VOCABULARY, batch, chi_square, padded, weight
from pretrain.base.errors import UserError
from pretrain.objective.kinds.fill_in_middle import FillInMiddle
from pretrain.order.batch import IGNORE, Batch, Vocabulary

MUTANTS = [
    ("src/pretrain/objective/kinds/fill_in_middle.py", "weights[inner].any()", "inner.any()"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "draw[0] < self.rate", "draw[0] < self.rate * 0.9"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "draw[0] < self.spm", "draw[0] > self.spm"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "room - 3)", "room)"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "(len(body) + 1)", "len(body)"),
    (
        "src/pretrain/objective/kinds/fill_in_middle.py",
        "suffix, [MIDDLE], prefix, middle, end",
        "suffix, [MIDDLE], middle, prefix, end",
    ),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "vocabulary.fim[::-1]", "vocabulary.fim"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "np.append(weights, [0, 0, 0])[place]", "weights"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "np.where(place >= 0, y, IGNORE)", "y"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "documents[first[:length]]", "batch.documents[i]"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "not self.sources or", "True or"),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "and not odd[inner].any()", ""),
    (
        "src/pretrain/objective/kinds/fill_in_middle.py",
        "body[:-1] if count > 0 and text[body[-1]] == vocabulary.end else body",
        "body",
    ),
    ("src/pretrain/objective/kinds/fill_in_middle.py", "+ (index - begins)[:, None])", "+ index[:, None])"),
]
PREFIX, SUFFIX, MIDDLE = FIM


def pieces(one: Batch, i: int) -> list[list[int]]:
    """The documents of sample i with the target after it, split at their ends."""
    out: list[list[int]] = [[]]
    for token in [*one.tokens[i].tolist(), one.targets[i, -1]]:
        out[-1].append(int(token))
        if token == END:
            out.append([])
    return [piece for piece in out if piece]


def restored(piece: list[int]) -> tuple[str, list[int]]:
    """How a piece was rearranged, and what it was before: an inverse by the sentinels alone."""
    if piece[0] != PREFIX:
        return "plain", piece
    end = [END] if piece[-1] == END else []
    piece = piece[: len(piece) - len(end)]
    a, b = piece.index(SUFFIX), piece.index(MIDDLE)
    if a == 1 and piece[b + 1 :]:
        kind = "either"  # with an empty prefix both forms are one
        return kind, [*piece[b + 1 :], *piece[2:b], *end]
    return "psm", [*piece[1:a], *piece[b + 1 :], *piece[a + 1 : b], *end]


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([2, 5, 30]), st.sampled_from([0.0, 0.4, 1.0]))
def test_a_sample_is_its_documents_rearranged(seed: int, sequence: int, mean: int, rate: float) -> None:
    every = batch(3, sequence, seed=seed, mean=mean)
    made = FillInMiddle(rate=rate, spm=0.5).prepare(every, VOCABULARY)
    assert np.array_equal(made.targets[:, :-1], np.where(np.isin(made.tokens, FIM), IGNORE, made.tokens)[:, 1:])
    for i in range(3):
        last = made.targets[i, -1]
        shown = replace(made, targets=np.where(made.targets == IGNORE, MIDDLE, made.targets))
        before, after = pieces(every, i), pieces(shown, i)
        kinds = [restored(piece) for piece in after]
        for (kind, text), whole in zip(kinds[:-1], before, strict=False):
            assert text == whole or kind == "plain", (kind, text, whole)
            assert kind != "plain" or text == whole
        kind, text = kinds[-1]
        assert text == before[len(after) - 1][: len(text)] or last == IGNORE
        changed = sum(kind != "plain" for kind, _ in kinds)
        lost = sum(map(len, before)) - sum(len(text) for _, text in kinds)
        assert lost == 3 * changed or last == IGNORE
        assert rate or np.array_equal(made.tokens[i], every.tokens[i])


def whole_documents(samples: int, length: int) -> Batch:
    """A document a sample, its last token the end that the last target is."""
    every = batch(samples, length, mean=10**9)
    targets = every.targets.copy()
    targets[:, -1] = END
    return replace(every, targets=targets, weights=weight(targets))


def kinds_of(made: Batch) -> Iterator[str]:
    for row in made.tokens:
        yield "plain" if row[0] != PREFIX else "spm" if row[1] == SUFFIX else "psm"


def test_rates_are_as_said_and_cuts_fall_anywhere() -> None:
    """Two cuts at any of m + 1 places: both at one place once, at two places twice, of (m + 1)² draws."""
    every, m = whole_documents(8_000, 8), 6  # tokens that are left of 9, the end not among them
    made = FillInMiddle(rate=0.7, spm=0.0).prepare(every, VOCABULARY)
    changed = made.tokens[:, 0] == PREFIX
    assert chi_square(np.array([changed.sum(), (~changed).sum()]), 8_000 * np.array([0.7, 0.3])) < 4
    counts = np.zeros((m + 1, m + 1))
    for row, last in zip(made.tokens[changed], made.targets[changed, -1], strict=True):
        text = [*row.tolist(), MIDDLE if last == IGNORE else int(last)]
        prefix, middle = text.index(SUFFIX) - 1, len(text) - 1 - text.index(MIDDLE)
        counts[prefix, prefix + middle] += 1
    upper = np.triu_indices(m + 1)
    expected = np.where(upper[0] == upper[1], 1, 2) * changed.sum() / (m + 1) ** 2
    assert counts.sum() == counts[upper].sum() and chi_square(counts[upper], expected) < 4
    both = FillInMiddle(rate=1.0, spm=0.3).prepare(every, VOCABULARY)
    spm = sum(kind == "spm" for kind in kinds_of(both))
    share = 0.3 + 0.7 * (2 * m + 1) / (m + 1) ** 2  # PSM with an empty prefix looks like SPM
    assert chi_square(np.array([spm, 8_000 - spm]), 8_000 * np.array([share, 1 - share])) < 4


def test_weights_go_with_their_tokens_and_sentinels_are_given() -> None:
    made = FillInMiddle(rate=1.0).prepare(batch(40, 60), VOCABULARY)
    predicted = made.targets != IGNORE
    first = batch(40, 60).tokens[:, 0]  # its weight is not known: it takes its neighbour's
    told = weight(made.targets) == made.weights
    assert not np.isin(made.targets[predicted], FIM).any() and (np.isin(made.tokens, FIM).sum(1) >= 3).all()
    assert (told | ~predicted | (made.targets == first[:, None])).all() and told[predicted].mean() > 0.9


def test_only_named_sources_are_rearranged() -> None:
    every = batch(40, 60)
    made = FillInMiddle(rate=1.0, sources=("code",)).prepare(every, VOCABULARY)
    assert np.array_equal(made.tokens[::2], every.tokens[::2]) and np.array_equal(made.targets[::2], every.targets[::2])
    assert (np.isin(made.tokens[1::2], FIM).sum(1) >= 3).all()


@pytest.mark.parametrize("ranks", [2, 3])
def test_no_split_changes_a_sample(ranks: int) -> None:
    every = batch(12, 60)
    made = FillInMiddle().prepare(every, VOCABULARY)
    for rank in range(ranks):
        names = ("tokens", "targets", "weights", "documents", "rows", "positions", "sources")
        part = replace(every, **{name: getattr(every, name)[rank::ranks] for name in names})
        found = FillInMiddle().prepare(part, VOCABULARY)
        assert all(np.array_equal(getattr(found, name), getattr(made, name)[rank::ranks]) for name in names)


def test_positions_run_on_or_begin_with_their_document_as_they_did() -> None:
    every = batch(20, 60)
    made = FillInMiddle(rate=1.0).prepare(every, VOCABULARY)
    assert np.array_equal(made.positions, every.positions)
    starts = np.array([[np.argmax(row == d) for d in row] for row in every.documents])
    apart = FillInMiddle(rate=1.0).prepare(replace(every, positions=every.positions - starts[..., None]), VOCABULARY)
    for row, positions in zip(apart.documents, apart.positions[..., 0], strict=True):
        assert [list(positions[row == d]) for d in np.unique(row)] == [
            list(range((row == d).sum())) for d in np.unique(row)
        ]


def test_a_piece_with_specials_and_an_unknown_last_target_stay() -> None:
    every = batch(8, 30, mean=10**9)
    odd = replace(every, tokens=np.where(np.arange(30) == 3, SIZE - 1, every.tokens))
    assert np.array_equal(FillInMiddle(rate=1.0).prepare(odd, VOCABULARY).tokens, odd.tokens)
    unknown = replace(every, targets=np.where(np.arange(30) == 29, IGNORE, every.targets))
    made = FillInMiddle(rate=1.0).prepare(unknown, VOCABULARY)
    assert (made.targets[:, -1] == IGNORE).all() and (np.isin(made.tokens, FIM).sum(1) == 3).all()
    pads = padded(8, 40)
    found = FillInMiddle(rate=1.0).prepare(pads, VOCABULARY)
    assert not (np.isin(found.tokens, FIM) & (found.documents == 99)).any()
    with pytest.raises(UserError, match="no tokens for filling in"):
        FillInMiddle().prepare(every, Vocabulary(40))
