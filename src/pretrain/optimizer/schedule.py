"""The learning rate as a factor of the step: warm-up, then cosine (Loshchilov & Hutter 2017) or a flat part and a
linear decay (WSD, Hu et al. 2024, arXiv 2404.06395)."""

import math

from pretrain.recipe.train import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """Of step `step` (from 0) out of `steps`: rises to 1 over the warm-up; the last step has about `final`."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.use == "constant":
        return 1.0
    decay = max(steps - warmup if schedule.use == "cosine" else round(schedule.decay * steps), 1)
    left = min((steps - step) / decay, 1.0)
    if schedule.use == "cosine":
        left = 0.5 * (1 - math.cos(math.pi * left))
    return schedule.final + (1 - schedule.final) * left
