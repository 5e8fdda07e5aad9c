"""Recipe: the sections together, and the rules that span them."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from pretrain.base.errors import UserError, nearest
from pretrain.base.files import digest_of
from pretrain.recipe.corpus import Corpus
from pretrain.recipe.evaluate import Evaluate
from pretrain.recipe.launch import Launch
from pretrain.recipe.layers import Layers, Origin, Tree
from pretrain.recipe.model import Model
from pretrain.recipe.parallel import Parallel
from pretrain.recipe.release import Release
from pretrain.recipe.run import Run
from pretrain.recipe.schema import Leaf, Problems, key
from pretrain.recipe.tokenizer import Tokenizer
from pretrain.recipe.tokens import Tokens
from pretrain.recipe.train import Train

KINDS = {"split": "bpe", "digits": "bpe", "lowercase": "wordpiece", "byte_fallback": "characters"}  # rules of a kind
FOLDER_NAME = "a name without slashes that begins with no dot"


@dataclass(frozen=True)
class Recipe:
    """The whole intent of a run, frozen."""

    run: Run = key("what the run is called")
    corpus: Corpus = key("from raw records to documents", Corpus())
    tokenizer: Tokenizer = key("from text to tokens", Tokenizer())
    tokens: Tokens = key("tokens on disk", Tokens())
    model: Model = key("family and sizes", Model())
    train: Train = key("objective, optimizer, length", Train())
    parallel: Parallel = key("how ranks divide the work", Parallel())
    evaluate: Evaluate = key("scores", Evaluate())
    release: Release = key("what others get", Release())
    launch: Launch = key("the job for a cluster", Launch())
    layers: Layers = field(default_factory=Layers, init=False, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """Names the intent: equal for equal values, wherever they were said."""
        return digest_of(tree(self))

    def origin(self, path: str) -> Origin:
        """Where the value of a dotted path was said."""
        return self.layers.origins.get(path, Origin())

    def to_toml(self) -> str:
        """The recipe with every default written out, as TOML that reads back equal."""
        return "\n".join(_toml(tree(self), ""))


def tree(value: object) -> Tree:
    """A section as plain values under the recipe's own keys; what is not said (None) is left out."""
    out: Tree = {}
    for f in fields(value) if is_dataclass(value) else ():
        inner = getattr(value, f.name)
        if inner is None or f.name == "layers":
            continue
        if f.metadata.get("rest"):
            out |= {f.metadata["by"]: inner.use, **inner.said()}
        else:
            out[f.name.removesuffix("_")] = _plain(inner)
    return out


def _plain(value: object) -> object:
    if isinstance(value, Leaf):
        return {"use": value.use, **value.said()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return tree(value) if is_dataclass(value) else value


def _toml(table: Tree, path: str) -> Iterator[str]:
    def is_tables(value: object) -> bool:
        return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)

    for name, value in table.items():
        if not isinstance(value, dict) and not is_tables(value):
            yield f"{name} = {_literal(value)}"
    for name, value in table.items():
        inner = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            yield from ("", f"[{inner}]", *_toml(value, inner))
        elif isinstance(value, list) and is_tables(value):
            for one in value:
                yield from ("", f"[[{inner}]]", *_toml(one, inner))


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_literal(one)}' for name, one in value.items())} }}"
    return repr(value)


def check(recipe: Recipe, problems: Problems) -> None:
    """Rules that span sections and keys."""

    def wrong(path: str, what: str, expected: str = "") -> None:
        origin = recipe.layers.origin(path)
        problems.add(f"{path}: {what}", where=origin if origin.file else "", expected=expected)

    train, sources = recipe.train, recipe.corpus.sources
    if not _names_folder(recipe.run.name):
        wrong("run.name", f"{recipe.run.name!r} is no folder name", FOLDER_NAME)
    if (train.steps, train.tokens, train.seconds) == (None, None, None):
        wrong("train", "neither steps nor tokens nor seconds is said", "one of them")
    if train.batch % train.sequence:
        low = max(train.batch // train.sequence, 1) * train.sequence
        wrong(
            "train.batch",
            f"{train.batch} tokens are no whole sequences of {train.sequence}",
            f"a multiple, such as {low}",
        )
    row = recipe.tokens.row
    if row is not None and (row < train.sequence or row % train.sequence):
        wrong("tokens.row", f"{row} is no multiple of train.sequence = {train.sequence}")
    elif row is not None and train.batch % row:
        wrong("train.batch", f"{train.batch} tokens are no whole rows of tokens.row = {row}")
    if recipe.tokens.packing != "contiguous" and train.mask == "causal":
        wrong("train.mask", f'"causal" looks across the documents of {recipe.tokens.packing} rows', '"documents"')
    start = train.sequence_warmup.start if train.sequence_warmup else train.sequence
    if train.sequence not in (start << i for i in range(32)):
        low = train.sequence // 2 ** max((train.sequence // start).bit_length() - 1, 0)
        wrong("train.sequence_warmup.start", f"{start} never doubles to {train.sequence}", f"such as {low}")
    if train.schedule.use == "wsd" and train.schedule.warmup + train.schedule.decay > 1:
        wrong("train.schedule", "warmup and decay are more than the whole run", "a sum of at most 1")
    rows = train.batch // train.sequence
    if (train.recompute == "budget") != (train.activation_bytes is not None):
        wrong("train.activation_bytes", 'goes with recompute = "budget", and that with it', "both, or neither")
    if train.micro_batch is not None and rows and rows % train.micro_batch:
        wrong("train.micro_batch", f"{train.micro_batch} does not divide the {rows} sequences of a batch")
    _check_pipeline(recipe.parallel, wrong)
    _check_vocabulary(recipe, wrong)
    _check_names(recipe, problems)
    names = [source.name for source in sources]
    for i, source in enumerate(sources):
        if source.name in names[:i]:
            wrong(f"corpus.sources.{i}.name", f"two sources are called {source.name!r}")
        if not _names_folder(source.name):
            wrong(f"corpus.sources.{i}.name", f"{source.name!r} is no folder name", FOLDER_NAME)
        if not source.paths and recipe.tokens.from_ is None:
            wrong(f"corpus.sources.{i}.paths", "no paths are said", "one glob or more")
    for i, step in enumerate(recipe.corpus.steps):
        for name in step.sources:
            if name not in names:
                path = f"corpus.steps.{i}.sources"
                origin, near = recipe.layers.origin(path), nearest(name, names)
                problems.add(f"{path}: no source is called {name!r}", where=origin if origin.file else "", near=near)
    if recipe.tokens.from_ is not None:
        return
    if not sources:
        wrong("corpus.sources", "no source is said", "[[corpus.sources]] with name, read and paths")
    _check_mixture(recipe, problems)


def _check_pipeline(section: Parallel, wrong: Callable[[str, str, str], None]) -> None:
    """The schedule is one that gives the right gradients, and has what it divides."""
    if section.schedule == "zero_bubble":
        what = "backward passes in two halves lose gradients of weights under FSDP2 (torch 2.13), in silence"
        wrong("parallel.schedule", what, '"1f1b" or "interleaved"')
    elif section.pp == 1 and (section.schedule, section.chunks) != ("1f1b", 1):
        wrong("parallel.schedule", "one stage has no schedule", "parallel.pp of 2 or more, or neither of the two")
    elif (section.schedule == "interleaved") != (section.chunks > 1):
        wrong("parallel.chunks", f"{section.chunks} for {section.schedule}", "2 or more for interleaved, 1 for 1f1b")


def _check_mixture(recipe: Recipe, problems: Problems) -> None:
    """At every point of the run something is drawn, from sources that are there; phases follow one another."""

    def wrong(path: str, what: str, expected: str = "", near: str = "") -> None:
        origin = recipe.layers.origin(path)
        problems.add(f"{path}: {what}", where=origin if origin.file else "", expected=expected, near=near)

    weights = {source.name: source.weight for source in recipe.corpus.sources}
    phases, before = recipe.train.phases, 0.0
    if weights and sum(weights.values()) <= 0 and not (phases and phases[0].start == phases[0].over == 0):
        wrong("corpus.sources", "all weights are zero", "at least one above zero")
    for i, phase in enumerate(phases):
        path = f"train.phases.{i}"
        for name, weight in phase.weights.items():
            if name not in weights and recipe.tokens.from_ is None:
                wrong(f"{path}.weights.{name}", "no such source", near=nearest(name, weights))
            elif not 0 <= weight < math.inf:
                wrong(f"{path}.weights.{name}", f"{weight} is no weight", "zero or more")
        weights |= phase.weights
        if weights and sum(weights.values()) <= 0:
            wrong(f"{path}.weights", "with it all weights are zero", "at least one above zero")
        if phase.start < before:
            wrong(
                f"{path}.start", f"{phase.start} lies before {before}, the end of what comes before", "phases in order"
            )
        if phase.start + phase.over > 1:
            wrong(f"{path}.over", f"{phase.start} + {phase.over} is past the end of the run", "a sum of at most 1")
        before = phase.start + phase.over


def _names_folder(name: str) -> bool:
    return name == Path(name).name and not name.startswith(".") and name.isprintable() and bool(name)


def _check_vocabulary(recipe: Recipe, wrong: Callable[[str, str, str], None]) -> None:
    """A trained tokenizer has room for the bytes beside what is reserved, and the model for the tokenizer."""
    section, ids = recipe.tokenizer, recipe.model.family.options.get("vocab_size")
    if section.from_ is not None or recipe.tokens.from_ is not None:
        return
    for name, kind in KINDS.items():
        value, plain = getattr(section, name), getattr(Tokenizer(), name)
        if value != plain and section.kind != kind:
            wrong(f"tokenizer.{name}", f"kind = {section.kind!r} has no such rule", f"kind = {kind!r}, or {plain!r}")
    if section.kind == "characters":
        return
    if section.kind == "bpe" and section.vocab_size - section.reserved < 256:
        what = f"{section.reserved} of vocab_size = {section.vocab_size} leave no room for the 256 bytes"
        wrong("tokenizer.reserved", what, f"at most {max(section.vocab_size - 256, 1)}, or a larger vocab_size")
    if section.kind == "bpe" and isinstance(ids, int) and ids < section.ids:
        wrong("model.vocab_size", f"{ids} is less than the tokenizer's {section.ids} ids", "at least as many")


def _check_names(recipe: Recipe, problems: Problems) -> None:
    """Every leaf that is named exists; their options are checked by `bind_all`."""
    for one in leaves(recipe):
        try:
            _ = one.kind
        except UserError as error:
            problems.found.append(error)


def leaves(recipe: Recipe) -> list[Leaf]:
    """Every leaf that the recipe names, in the order of its sections."""
    sources = [leaf for source in recipe.corpus.sources for leaf in (source.reader, source.extract)]
    corpus = [*sources, *(step.leaf for step in recipe.corpus.steps), recipe.corpus.engine]
    train = [recipe.train.objective, recipe.train.optimizer]
    return [*corpus, recipe.model.family, *train, *recipe.evaluate.tasks]
