"""From a budget of seconds to a number of steps, measured on real steps of a state that is then thrown away."""

import time
from collections.abc import Callable

from pretrain.checkpoint.state import State
from pretrain.order.batch import Data
from pretrain.recipe.train import Train
from pretrain.train.step import Steps, train_step

WARM, MEASURED_SECONDS, LEAST = 2, 4.0, 5  # steps not counted, seconds measured, steps at the least


def step_seconds(make: Callable[[], tuple[State, Steps]], data: Data, section: Train) -> float:
    """Seconds of a step: the median over some seconds of them."""
    (state, steps), times = make(), list[float]()
    rows, ranks = section.batch // data.row, steps.ranks
    share = ranks.data_rank, ranks.layout.data
    while ranks.agree(len(times) < WARM + LEAST or sum(times[WARM:]) < MEASURED_SECONDS):
        start = time.perf_counter()
        float(train_step(state, data.batch(len(times) * rows, rows, *share), steps, 0.1).loss)
        times.append(time.perf_counter() - start)
    return sorted(times[WARM:])[(len(times) - WARM) // 2]
