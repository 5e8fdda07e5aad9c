"""How a recipe's model and batch are divided among ranks, known before anything is made."""

from typing import Any

from pretrain.base.extension import find
from pretrain.parallel import schedule
from pretrain.parallel.layout import SHARDED, Layout, asked, refuse
from pretrain.recipe.recipe import Recipe
from pretrain.recipe.train import Train

MICRO_TOKENS = 16384  # tokens in a forward pass where the recipe does not say
FILLED = 4  # micro-batches for each stage, of which then less than a fifth of the time is bubble


def layout_of(recipe: Recipe, ranks: int, config: Any = None) -> Layout:
    """The layout of so many ranks; without a Config the vocabulary is not known yet. Raises UserError where it cannot
    be, with the arithmetic and what would do."""
    train, layout = recipe.train, asked(recipe.parallel, ranks)
    known = config or recipe.model.family.bind(vocab_size=recipe.tokenizer.ids)
    axes = {name: size for name, size in known.axes().items() if config is not None or name != "vocab"}
    row = recipe.tokens.row or train.sequence
    shortest = train.sequence_warmup.start if train.sequence_warmup else train.sequence
    refuse(layout, axes, rows=train.batch // row, sequence=shortest)
    if layout.tp > 1 and train.precision not in ("auto", "fp32", "bf16", "bf16_pure"):
        from pretrain.model import narrow  # with torch
        from pretrain.run.precision import policy_of

        leaf = recipe.model.family
        narrow.refuse(find(leaf.kind, leaf.use).weights(known), known.axes(), policy_of(recipe), SHARDED, layout.tp)
    schedule.refuse(layout, known.num_hidden_layers, passes(train, layout))
    return layout


def micro_batch(section: Train, layout: Layout) -> int:
    """Samples in a forward pass: as said, or what fits; of several stages so few that these are busy."""
    samples = section.batch // section.sequence // layout.data
    most = max(MICRO_TOKENS // section.sequence, 1)
    if layout.pp > 1:
        most = max(min(most, samples // (FILLED * layout.pp)), 1)
    rounds = layout.pp if layout.chunks > 1 else 1  # interleaved passes come in rounds
    fit = (n for n in range(min(samples, most), 0, -1) if samples % n == 0 and samples // n % rounds == 0)
    return section.micro_batch or next(fit, 1)


def passes(section: Train, layout: Layout) -> int:
    """Micro-batches of a step that a rank sees."""
    return -(-(section.batch // section.sequence // layout.data) // micro_batch(section, layout))
