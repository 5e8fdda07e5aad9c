"""What becomes of a batch before any weight moves by it: it is taken, passed over, or training goes back past it.

A norm is held against the median of the last steps, a loss against their median and spread, both of which a spike does
not move. PaLM went back some 100 steps and passed over 200 to 500 batches (Chowdhery et al. 2022, arXiv 2204.02311,
5.1); OLMo 2 passes over single batches six deviations away (OLMo et al. 2025, arXiv 2501.00656); ZClip judges norms by
running statistics (Kumar et al. 2025, arXiv 2504.02507). What is passed over stands in the history of the order.
"""

import json
import math
from collections.abc import Callable, Sequence
from statistics import median

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import verify, write
from pretrain.base.remote import Place, remove
from pretrain.checkpoint.save import LATEST, STATE, every, load, path_of, step_of
from pretrain.checkpoint.state import State
from pretrain.events.kinds import Event, Pruned, Skipped
from pretrain.recipe.train import Guard as Rules


class Guard:
    """Judges the batches of a run, each of `rows` rows, by its rules and what `state.recent` remembers.

    At the positions `turns` another mixture or length begins, which is no spike: what was before is forgotten there.
    Loss and norm are sums over all ranks, the same number on each: all decide alike without asking each other.
    """

    def __init__(
        self,
        state: State,
        rules: Rules,
        rows: int,
        turns: Sequence[int],
        checkpoints: Place,
        report: Callable[[Event], None],
    ) -> None:
        self._turns = turns
        self._state, self._rules, self._rows, self._folder, self._report = state, rules, rows, checkpoints, report
        self._rule, self._why, self._seen = "take", "", (0.0, 0.0)

    def takes(self, loss: float, norm: float) -> bool:
        """Whether weights may move by the batch; if so, it is remembered."""
        recent, self._seen = self._state.recent, (loss, norm)
        if any(self._after() <= turn < self._state.position + self._rows for turn in self._turns):
            recent.clear()
        self._rule, self._why = judged(self._rules, recent, loss, norm)
        if self._rule == "take":
            recent.append((loss, norm))
            del recent[: -self._rules.window]
        return self._rule == "take"

    def pass_over(self) -> bool:
        """Moves past the batch that was not taken; True where training went back for it. Raises UserError."""
        state, step, start = self._state, self._state.step + 1, self._state.position
        stop = start + self._rows
        self._give_up(step, stop)
        back = self._rule == "rewind" and self._go_back()
        if back:
            start, stop = state.position, stop + self._rules.ahead * self._rows
        state.history, state.position = state.history.without(start, stop), stop
        loss, norm = (one if math.isfinite(one) else None for one in self._seen)
        self._report(Skipped(step, state.step, start, stop - start, loss, norm, self._why))
        return back

    def _after(self) -> int:
        """The position after the last step that was taken."""
        position = self._state.position
        for start, stop in reversed(self._state.history.skipped):
            position = start if stop == position else position
        return position

    def _give_up(self, step: int, stop: int) -> None:
        """Raises UserError where the rule says so, or too many batches were passed over of late."""
        what, expected = f"{self._why} at step {step}", "numbers that are like those before"
        span = max(self._rules.window, self._rules.patience)  # so that as many in a row always end the run
        late = [end for _, end in self._state.history.skipped if end >= stop - span * self._rows]
        if self._rule != "stop":
            if len(late) < self._rules.patience:
                return
            what += f", and {len(late)} of the last {span} batches were passed over already"
            expected = f"fewer than train.guard.patience = {self._rules.patience}"
        saved = max(map(step_of, every(self._folder)), default=None)
        what += "" if saved is None else f"; the last checkpoint is of step {saved}"
        raise UserError(what, expected=f"{expected}: try a lower learning rate, or train.precision=fp32")

    def _go_back(self) -> bool:
        """Takes over the newest whole checkpoint from which training has not been sent past a batch before, and removes
        later ones; False where there is none."""
        state, ranks = self._state, self._state.ranks
        step = ranks.agree(self._newest() if ranks.leads else -1)
        if step < 0:
            return False
        ranks.fold(state.model)
        path = path_of(self._folder, step)
        load(path, state)
        if ranks.leads:
            write(self._folder / LATEST, path.name + "\n")
            for later in (one for one in every(self._folder) if step_of(one) > step):
                remove(later)
                self._report(Pruned(step_of(later), str(later)))
        return True

    def _newest(self) -> int:
        tried = {start for start, _ in self._state.history.skipped}
        for path in reversed(every(self._folder)):
            try:
                verify(path)
            except DamagedError:
                continue
            if json.loads((path / STATE).read_bytes())["position"] not in tried:
                return step_of(path)
        return -1


def judged(rules: Rules, recent: Sequence[tuple[float, float]], loss: float, norm: float) -> tuple[str, str]:
    """("take", "skip", "rewind" or "stop", and why), of a batch after steps with `recent` losses and norms."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return rules.not_finite, f"loss {loss} with gradient norm {norm}"
    if rules.spike == "ignore" or len(recent) < rules.window:
        return "take", ""
    losses, norms = zip(*recent[-rules.window :], strict=True)
    usual = median(norms)
    if norm > rules.factor * usual:
        return rules.spike, f"gradient norm {norm:.4g} (median of {rules.window} steps: {usual:.4g})"
    usual = median(losses)
    spread = median(abs(one - usual) for one in losses)
    if loss - usual > rules.factor * spread:
        return rules.spike, f"loss {loss:.4g} (median of {rules.window} steps: {usual:.4g} ± {spread:.2g})"
    return "take", ""
