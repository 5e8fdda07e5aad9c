"""Held-out loss under a run's own objective, for models that give no likelihood of a text."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pretrain.evaluate.share import shared, total
from pretrain.objective.objective import Objective, losses
from pretrain.order.batch import Batch, Vocabulary
from pretrain.parallel.apply import Ranks

ROWS = 16  # windows in a forward pass


@torch.no_grad()
def held_out_loss(
    model: nn.Module,
    objective: Objective,
    vocabulary: Vocabulary,
    documents: Sequence[np.ndarray],
    *,
    sequence: int,
    seed: int,
    apart: bool,
    ranks: Ranks | None = None,
) -> dict[str, float]:
    """Nats a predicted token, by the names of the objective's losses; all `ranks` of the model call it, and share.

    Documents (ids with their ends) stand one after another in windows of `sequence` tokens; `apart` stops attention at
    their bounds. What is drawn depends on the seed and the window, so that two models are asked the same.
    """
    tokens = np.concatenate(documents).astype(np.int64)
    which = np.repeat(np.arange(len(documents), dtype=np.int32), [len(one) for one in documents])
    width, ranks = min(sequence, len(tokens) - 1), ranks or Ranks()
    count, totals, counts = (len(tokens) - 1) // width, defaultdict[str, float](float), defaultdict[str, float](float)
    for first, ours in shared(range(0, count, ROWS), ranks):
        rows = np.arange(first, min(first + ROWS, count))
        places = rows[:, None] * width + np.arange(width)
        batch = Batch(
            tokens=tokens[places],
            targets=tokens[places + 1],
            weights=np.ones(places.shape, np.float32),
            documents=which[places],
            rows=rows,
            positions=np.broadcast_to(np.arange(width), places.shape)[..., None],
            seed=seed,
            sources=("held out",) * len(rows),
        )
        ready = objective.prepare(batch, vocabulary)
        for name, loss in losses(model, model, objective, ready, documents=apart).items():
            totals[name] += float(loss.total) * ours
            counts[name] += float(loss.count) * ours
    device = next(model.parameters()).device
    sums = {name: [total(one[name], ranks, device) for one in (totals, counts)] for name in totals}
    return {name: nats / max(predicted, 1.0) for name, (nats, predicted) in sums.items()}
