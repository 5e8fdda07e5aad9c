"""The model card: README.md of a released folder (Mitchell et al. 2019, arXiv 1810.03993)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pretrain.base.units import show_bytes, show_count, show_seconds
from pretrain.events.kinds import Score
from pretrain.release.lineage import Lineage, lines

PRETRAIN = ('Its architecture is pretrain\'s own: `pretrain sample . "text"` loads it, transformers does not.',)

BOTH_SIDES = "Every token sees every other: `is_causal` is false in config.json, which transformers 5 reads."
CONTINUES = "A base model: it continues text, follows no instructions, and states nothing reliably."
FILLS_IN = "A base model: it fills in hidden tokens, does not continue text, and states nothing reliably."


@dataclass(frozen=True)
class Facts:
    """What the card says, from the run."""

    name: str
    description: str
    license: str
    architecture: str
    objective: str  # what it was trained with
    causal: bool  # whether a token sees only what stands before it
    published: bool  # whether transformers knows the architecture
    parameters: int
    sequence: int
    seconds: float
    machine: str
    summary: Mapping[str, Mapping]
    licenses: Mapping[str, str | None]
    scores: Sequence[Score]
    lineage: Lineage


def card(facts: Facts) -> str:
    """Markdown with the front matter that model hubs read."""
    tag = "text-generation" if facts.causal else "fill-mask"
    library = "transformers" if facts.published else "pretrain"
    said = [
        *("---", f"license: {facts.license}", f"library_name: {library}", f"pipeline_tag: {tag}"),
        *("tags:", "- pretrain", "---", "", f"# {facts.name}", ""),
        facts.description or f"A {facts.architecture} of {show_count(facts.parameters)} parameters.",
        *("", *(loads(facts.architecture) if facts.published else PRETRAIN), "", "## Model", ""),
        f"{facts.architecture}, {facts.parameters:,} parameters, trained on sequences of {facts.sequence} tokens.",
        f"Objective: {facts.objective}." + ("" if facts.causal else f" {BOTH_SIDES}"),
        *("", "## Data", "", "| source | documents | text | licence | held out |", "|---|---|---|---|---|"),
    ]
    for source, parts in facts.summary.items():
        kept, held = parts["train"], parts["held_out"]
        size = show_bytes(kept["bytes"])
        license = facts.licenses.get(source) or "not stated"
        said.append(f"| {source} | {kept['documents']:,} | {size} | {license} | {held['documents']:,} documents |")
    said += [
        *("", "Held-out documents, and near copies of them, were never trained on.", "", "## Training", ""),
        f"{show_seconds(facts.seconds)} on {facts.machine}. Energy: not measured.",
        *("", "## Lineage", "", *lines(facts.lineage), "", f"Released by pretrain {facts.lineage['pretrain']}."),
    ]
    if facts.scores:
        said += ["", "## Scores", "", "| what | on | value |", "|---|---|---|"]
        said += [f"| {score.name} | {score.split} | {score.value:.3f} {score.unit} |" for score in facts.scores]
    said += ["", "## Limits", "", CONTINUES if facts.causal else FILLS_IN]
    return "\n".join(said) + "\n"


def loads(architecture: str) -> tuple[str, ...]:
    """How transformers loads it."""
    kind = "AutoModelForMaskedLM" if architecture.endswith("MaskedLM") else "AutoModelForCausalLM"
    return (
        *("```python", f"from transformers import {kind}, AutoTokenizer", ""),
        f'model = {kind}.from_pretrained(".")  # the folder of this file',
        *('tokenizer = AutoTokenizer.from_pretrained(".")', "```"),
    )
