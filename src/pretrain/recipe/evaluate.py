"""[evaluate]: how good the model is, beside what."""

from dataclasses import dataclass

from pretrain.base.units import size
from pretrain.recipe.schema import Leaf, key, leaves_key


@dataclass(frozen=True)
class Evaluate:
    """[evaluate]: held-out documents, baselines on the same text, and tasks."""

    held_out_bytes: int = key(
        "bytes of held-out text that the end is measured on, at most", 2**20, unit=size, at_least=1
    )
    during_bytes: int = key("bytes of it that estimates during training use", 2**16, unit=size, at_least=1)
    baselines: bool = key("whether a unigram model and xz -9 are measured on the same text", True)
    prompts: tuple[str, ...] = key("what samples begin with", ("",))
    sample_tokens: int = key("length of a sample in tokens", 128, at_least=1)
    temperature: float = key("of samples", 0.7, at_least=0)
    tasks: tuple[Leaf, ...] = leaves_key("what else is scored", "evaluate.tasks")
