"""What is measured and written between training steps; nothing of it touches the state."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from pretrain.checkpoint.state import State
from pretrain.evaluate.perplexity import likelihood
from pretrain.events.kinds import Event, Sample, Score
from pretrain.generate.sample import sample
from pretrain.recipe.evaluate import Evaluate
from pretrain.tokenizer.tokenizer import Tokenizer

Report = Callable[[Event], None]


def estimate(
    tokenizer: Tokenizer, texts: Sequence[str], section: Evaluate, sequence: int, report: Report
) -> Callable[[State], None]:
    """A callable that scores held-out documents, up to `during_bytes` of them."""

    def call(state: State) -> None:
        found = likelihood(
            state.model, tokenizer, texts, sequence=sequence, limit_bytes=section.during_bytes, ranks=state.ranks
        )
        detail: dict[str, object] = {"bytes": found.bytes, "tokens": found.tokens}
        report(Score(state.step, "bits per byte", found.bits_per_byte, "bits", "held out, estimate", detail))

    return call


def estimate_loss(measure: Callable[[nn.Module], Mapping[str, float]], report: Report) -> Callable[[State], None]:
    """A callable that reports held-out losses by name, as `measure` finds them."""

    def call(state: State) -> None:
        for name, value in measure(state.model).items():
            report(Score(state.step, f"loss, {name}", value, "nats per predicted token", "held out, estimate"))

    return call


def write_samples(tokenizer: Tokenizer, section: Evaluate, seed: int, report: Report) -> Callable[[State], None]:
    """A callable that lets the model write from each prompt."""

    def call(state: State) -> None:
        for number, prompt in enumerate(section.prompts):
            start = [] if tokenizer.end is None else [tokenizer.end]
            ids = [*start, *tokenizer.encode(prompt).tolist()] or [0]
            made = sample(
                state.model,
                ids,
                tokens=section.sample_tokens,
                temperature=section.temperature,
                top_k=40,
                seed=seed + number,
                end=tokenizer.end,
            )
            report(Sample(state.step, prompt, tokenizer.decode(made[0])))

    return call
