"""The stage that scores a trained model."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from pretrain.evaluate import baselines
from pretrain.evaluate.held_out import held_out_loss
from pretrain.evaluate.perplexity import likelihood
from pretrain.events.kinds import Notice, Score
from pretrain.run.work import Work
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.shelf import Shelf


def scores(work: Work, model: nn.Module, step: int) -> list[Score]:
    """Held-out likelihood beside its baselines, and the recipe's tasks; all ranks ask the model, one asks the text."""
    section, made = work.recipe.evaluate, list[Score]()
    texts, size = list[str](), 0
    for document in work.held_out():
        if size >= section.held_out_bytes:
            break
        texts.append(document.text)
        size += len(document.text.encode())
    if texts and not work.objective.causal:
        for name, value in objective_losses(work, model, texts, size).items():
            made.append(Score(step, f"loss, {name}", value, "nats per predicted token", "held out"))
    elif texts:
        found = likelihood(model, work.tokenizer, texts, sequence=work.recipe.train.sequence, ranks=work.ranks)
        detail: dict[str, object] = {"bytes": found.bytes, "tokens": found.tokens, "documents": found.documents}
        made.append(Score(step, "bits per byte", found.bits_per_byte, "bits", "held out", detail))
        made.append(Score(step, "perplexity", found.perplexity, "per token", "held out", detail))
        if section.baselines and work.ranks.leads:
            ends = [] if work.tokenizer.end is None else [work.tokenizer.end]
            ids = [np.concatenate([one, np.array(ends, np.int32)]) for one in work.tokenizer.encode_batch(texts)]
            unigram = baselines.unigram_bits_per_byte(train_counts(work), ids, size)
            made.append(Score(0, "bits per byte, unigram baseline", unigram, "bits", "held out"))
            packed = baselines.xz_bits_per_byte(texts)
            made.append(Score(0, "bits per byte, xz -9 baseline", packed, "bits", "held out"))
    else:
        text = "nothing is held out (corpus.held_out, too few documents?): there is no bits per byte"
        work.report(Notice("warning", text))
    for leaf in section.tasks:
        made.append(leaf.bind().score(model, work.tokenizer, step, work.recipe.run.seed))
    return made


def objective_losses(work: Work, model: nn.Module, texts: Sequence[str], size: int) -> dict[str, float]:
    """The objective's own losses on held-out documents, whole ones until `size` bytes are reached."""
    ends = np.array([] if work.tokenizer.end is None else [work.tokenizer.end], np.int32)
    before = np.cumsum([0, *(len(text.encode()) for text in texts)])
    some = work.tokenizer.encode_batch([text for text, at in zip(texts, before, strict=False) if at < size])
    train = work.recipe.train
    return held_out_loss(
        model, work.objective, work.vocabulary, [np.concatenate([ids, ends]) for ids in some],
        sequence=train.sequence, seed=work.recipe.run.seed, apart=train.mask == "documents", ranks=work.ranks,
    )  # fmt: skip


def train_counts(work: Work) -> np.ndarray:
    """How often each id stands in the training shards, int64 [vocab]."""
    counts = np.zeros(work.config.vocab_size, np.int64)
    for path in work.tokens.values():
        catalogue = Catalogue.load(path)
        for number in range(len(catalogue.shards)):
            counts += np.bincount(Shelf(catalogue).shard(number).tokens, minlength=len(counts))
    return counts
