"""The graph of stages: corpus → tokenizer → tokens → train → evaluate → release; a stage runs if its inputs changed."""

import importlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, cast

from pretrain.base import remote
from pretrain.base.errors import UserError, nearest
from pretrain.base.files import digest_file, write
from pretrain.corpus.build import Build
from pretrain.corpus.cut import CUT_VERSION, Cut, empty
from pretrain.corpus.made_of import made_of
from pretrain.corpus.parts import Steps
from pretrain.corpus.sample import Sample
from pretrain.corpus.task import Engine, Pool
from pretrain.corpus.tokenize import tokenize, units
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event, Fault, Finished, Notice, Stage, Started
from pretrain.events.log import Log
from pretrain.events.read import all_of
from pretrain.order.pack import Rows
from pretrain.order.phases import source_of
from pretrain.parallel import launch
from pretrain.recipe.bind import bind_all
from pretrain.recipe.recipe import Recipe, tree
from pretrain.recipe.tokenizer import Tokenizer as Section
from pretrain.run import tokens
from pretrain.run.find import files_of, inputs
from pretrain.run.layout import layout_of
from pretrain.run.store import Key, Store
from pretrain.run.strata import strata
from pretrain.shards.format import SHARD_VERSION
from pretrain.shards.shelf import Cache
from pretrain.tokenizer import bpe, take_over, wordpiece
from pretrain.tokenizer.splits import pattern
from pretrain.tokenizer.tokenizer import Tokenizer

STAGES = ("corpus", "tokenizer", "tokens", "train", "evaluate", "release")
PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "pyarrow")  # whose versions can change a result
PROOF_DOCUMENTS, PROOF_CHARACTERS = 64, 20_000  # of each source, on which a faster encoder must be equal


class Missing(Exception):
    """A stage that others need is not made, and is not to be made now."""


@dataclass
class Context:
    """What the stages of one run share."""

    recipe: Recipe
    run: RunDirectory
    store: Store
    report: Callable[[Event], None]
    dry: bool = False
    tokenizer_folder: Path | None = None
    cuts: dict[str, Cut] = field(default_factory=dict)  # by stratum, what its tokens are made of
    joined: bool = False  # whether the other ranks, where there are any, have been called

    @property
    def remembered(self) -> dict[str, Any]:
        """What stages.json says of the run so far; it belongs to train, evaluate and release."""
        return json.loads(self.run.stages.read_bytes()) if self.run.stages.exists() else {}

    def stored(self, name: str, key: Key, make: Callable[[Path], None], *, wanted: bool) -> Path:
        """An output of the store, made where it is missing and wanted. Raises Missing where it is not to be made."""
        folder = self.store.find(name, key)
        if folder is None and wanted and not self.dry:
            with self.store.alone(name, key):
                return self._made(name, key, make)
        if folder is None:
            self.report(Stage(name, "skipped", self._why(name, key)))
            raise Missing(name)
        if wanted:
            self.report(Stage(name, "reused", "nothing that it is made of changed", str(folder)))
        return folder

    def _why(self, name: str, key: Key) -> str:
        """Why an output is missing, by the one of its name that this run used last."""
        used = [event.folder for event in all_of(self.run, Stage) if event.name == name and event.folder]
        return self.store.why(name, key, Path(used[-1]) if used else None)

    def _made(self, name: str, key: Key, make: Callable[[Path], None]) -> Path:
        if folder := self.store.find(name, key):
            self.report(Stage(name, "reused", "another run has made it just now", str(folder)))
            return folder
        why, start = self._why(name, key), time.monotonic()
        self.report(Stage(name, "started", why))
        with self.store.make(name, key) as partial:
            make(partial)
        folder = self.store.folder(name, key)
        self.report(Stage(name, "finished", why, str(folder), time.monotonic() - start))
        return folder


def chosen(only: str | None, first: str | None, last: str | None) -> tuple[str, ...]:
    """The stages that --only, --from and --to leave. Raises UserError."""
    for name in (only, first, last):
        if name is not None and name not in STAGES:
            raise UserError(f"no stage {name!r}", expected=", ".join(STAGES), near=nearest(name, STAGES))
    if only is not None and (first or last) is not None:
        raise UserError("--only stands beside --from or --to", expected="--only, or one or both of the others")
    start, stop = STAGES.index(only or first or STAGES[0]), STAGES.index(only or last or STAGES[-1])
    if stop < start:
        raise UserError(f"{STAGES[stop]} comes before {STAGES[start]}", expected=" → ".join(STAGES))
    return STAGES[start : stop + 1]


def execute(
    recipe: Recipe,
    directory: Path | str | None = None,
    *,
    only: str | None = None,
    first: str | None = None,
    last: str | None = None,
    dry: bool = False,
    ranks: int | None = None,
    subscribers: Sequence[Callable[[Event], None]] = (),
) -> Path:
    """Runs every stage of a recipe whose inputs changed and returns the run directory.

    `directory` is `runs/<run.name>` here, if not said; `store/` stands beside the folder of runs. Stages outside
    `first` … `last` are used, not run; with `dry` none is run, and each says whether it would be, and why. `ranks`
    would train then, those that were started if not said. Raises UserError.
    """
    stages = chosen(only, first, last)
    if recipe.model.from_ is not None and _needed(stages, 1):
        recipe = importlib.import_module("pretrain.run.published").completed(recipe)  # with torch
    bind_all(recipe, training=_needed(stages, 3))
    if _needed(stages, 3):
        layout_of(recipe, ranks or launch.size())
    inputs(recipe)
    run = RunDirectory((Path(directory) if directory is not None else Path("runs") / recipe.run.name).absolute())
    context = Context(recipe, run, Store(run.store), lambda event: None, dry)
    if recipe.run.checkpoints is not None and "train" in stages and not dry and launch.rank() == 0:
        remote.try_out(remote.place(recipe.run.checkpoints) / recipe.run.name)
    if dry:

        def tell(event: Event) -> None:
            for subscriber in subscribers:
                subscriber(event)

        context.report = tell
        walk(context, stages)
        return run.path
    if launch.rank() > 0:
        follow(context)
        return run.path
    start = time.monotonic()
    with Log(run) as log:
        for subscriber in subscribers:
            log.subscribe(subscriber)
        context.report = log.write
        log.write(Started(recipe.run.name, recipe.digest, " ".join(sys.argv), version("pretrain")))
        _keep_versions(context)
        if "train" not in context.remembered:  # then the run has its own, with what training settled
            keep_recipe(run, recipe)
        if "train" in stages and recipe.train.precision not in ("auto", "fp32", "bf16"):
            log.write(importlib.import_module("pretrain.run.precision").notice(recipe))  # with torch
        try:
            walk(context, stages)
            if launch.size() > 1 and not context.joined:
                with launch.joined(device(), together=False):
                    pass
        except BaseException as error:
            with suppress(UserError, OSError):  # on a full disk the log cannot be told either
                log.write(Fault("interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)))
            raise
        log.write(Finished(time.monotonic() - start, str(run.path)))
    return run.path


def follow(context: Context) -> None:
    """What all ranks but the leading one do: they wait until it has what training needs, and train with it."""
    with launch.joined(device(), together=True) as together:
        if together:
            walk(context, ("train",))


def device() -> str:
    """Where training runs."""
    return str(importlib.import_module("pretrain.train.machine").device())


def walk(context: Context, stages: Sequence[str]) -> None:
    """Goes through the stages; says what a missing one leaves undone."""
    try:
        cut = corpus_stage(context, "corpus" in stages)
        tokenizer = tokenizer_stage(context, cut, "tokenizer" in stages) if _needed(stages, 1) else None
        if tokenizer is None or not _needed(stages, 2):
            return
        if not context.dry:
            tokenizer = fastest(context, cut, tokenizer)
        folders = tokens_stage(context, cut, tokenizer, "tokens" in stages)
    except Missing as missing:
        if context.dry:
            context.report(Notice("info", f"what follows {missing} would run as well"))
            return
        stage = str(missing).partition("/")[0].replace("stratum", "tokens")
        expected = f"`--to {stage}` first, or no --from and --only"
        raise UserError(f"{missing} is not made yet", expected=expected) from None
    if _needed(stages, 3):
        importlib.import_module("pretrain.run.model_stages").walk(context, stages, cut, tokenizer, folders)


def _needed(stages: Sequence[str], number: int) -> bool:
    return any(STAGES.index(stage) >= number for stage in stages)


def corpus_stage(context: Context, wanted: bool) -> Cut:
    """Documents of all sources through the steps, and the cut over them all."""
    recipe = context.recipe
    if recipe.tokens.from_ is not None:
        return Cut(context.stored("corpus", {"version": CUT_VERSION, "documents": "none"}, empty, wanted=True))
    files = files_of(recipe, context.store, keep=not context.dry)

    def make(folder: Path) -> None:
        steps = Steps(context.store.root / "steps")
        with workers(context) as pool:
            Build(recipe.corpus, recipe.run.seed, steps, pool, context.report).run(files, folder)

    key = made_of(recipe.corpus, files, recipe.run.seed)
    cut = Cut(context.stored("corpus", key, make, wanted=wanted))
    for said in cut.aside if wanted else ():
        again = f"to try it again, remove {cut.folder}"
        context.report(Notice("warning", f"set aside, and not in this corpus: {said} ({again})"))
    for name in cut.summary if wanted else ():
        context.report(Notice("info", cut.describe(name)))
    return cut


def tokenizer_stage(context: Context, cut: Cut, wanted: bool) -> Tokenizer:
    """The tokenizer of the recipe, trained on a seeded sample of the training documents, or taken over."""
    section, shards = context.recipe.tokenizer, context.recipe.tokens.from_
    given, said = section.from_, "tokenizer.split" in context.recipe.layers.origins
    if given is None and shards is not None:
        given = str(tokens.tokenizer_at(tokens.sources_at(shards), context.store.root / "steps" / "tokenizers"))
    split = pattern(section.split, section.digits) if said else None  # of ranks that are taken over: never guessed
    if given is not None:
        parts = {file.name: digest_file(file) for file in take_over.files(given)}
        key: Key = {"version": bpe.BPE_VERSION, "from": parts, "split": split, "specials": section.specials}
    else:
        sample = sample_texts(context.recipe, cut)
        text = {"documents": cut.digest("train"), "bytes": sample.bytes}
        settings = {"version": bpe.BPE_VERSION, "settings": tree(section)}
        key = {**settings, "seed": context.recipe.run.seed, "text": text}
    begun = context.remembered.get("folders", {}).get("tokenizer")
    own = context.store.folder("tokenizer", key).name
    if begun not in (None, own) and context.store.differs_only_in("text", context.store.root / begun, key):
        context.tokenizer_folder = context.store.root / begun
        if wanted:
            context.report(Stage("tokenizer", "reused", "the run was begun with it", str(context.tokenizer_folder)))
        return Tokenizer.load(context.tokenizer_folder)

    def make(folder: Path) -> None:
        if given is not None:
            take_over.take_over(given, split=split, specials=section.specials).save(folder)
            return
        context.report(Notice("info", f"the tokenizer is trained on {sample.describe()}"))
        train(section, sample).save(folder)

    context.tokenizer_folder = context.stored("tokenizer", key, make, wanted=wanted)
    return Tokenizer.load(context.tokenizer_folder)


def train(section: Section, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer as a recipe says. Raises UserError where the vocabulary or the texts are too small."""
    same: dict[str, Any] = {"reserved": section.reserved, "own": section.specials, "multiple": section.multiple}
    if section.kind == "characters":
        return bpe.characters(texts, byte_fallback=section.byte_fallback, **same)
    if section.kind == "wordpiece":
        return wordpiece.train(texts, section.vocab_size, lowercase=section.lowercase, **same)
    return bpe.train(texts, section.vocab_size, split=section.split, digits=section.digits, **same)


def sample_texts(recipe: Recipe, cut: Cut) -> Sample:
    """What a tokenizer is trained on: `tokenizer.sample_bytes` by the weights of the sources."""
    return Sample.of(cut, recipe.tokenizer.sample_bytes, {one.name: one.weight for one in recipe.corpus.sources})


def fastest(context: Context, cut: Cut, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer served by a faster encoder, where one gives the same ids on documents of every source."""
    texts = [
        document.text[:PROOF_CHARACTERS]
        for name in cut.summary
        for document in islice(cut.documents("train", name), PROOF_DOCUMENTS)
    ]
    served, why = tokenizer.faster(texts)
    context.report(Notice("info", why))
    return served


def tokens_stage(context: Context, cut: Cut, tokenizer: Tokenizer, wanted: bool) -> dict[str, Path]:
    """Shards of every stratum of a source, each in a folder that neither weights nor other sources name; its rows."""
    section, folders = context.recipe.tokens, dict[str, Path]()
    for name, place in (tokens.sources_at(section.from_) if section.from_ is not None else {}).items():
        key: Key = {"version": SHARD_VERSION, "tokenizer": tokenizer.digest, **tokens.made_of(place, section.dtype)}

        def use(folder: Path, place: str = place) -> None:
            with workers(context) as pool:
                tokens.use(place, folder, tokenizer, section.dtype, pool)

        folders[name] = context.stored(f"tokens/{name}", key, use, wanted=wanted)
    if section.from_ is None:
        folders = _tokens_made(context, cut, tokenizer, wanted)
    for name, folder in folders.items():
        tokens.check(name, folder, tokenizer)
        if wanted and not context.dry:
            context.report(Notice("info", _pack(context, name, folder)))
    return folders


def _tokens_made(context: Context, cut: Cut, tokenizer: Tokenizer, wanted: bool) -> dict[str, Path]:
    """Documents of the cut to tokens; what came to a source since the run was begun is a stratum of its own."""
    section, folders, at = context.recipe.tokens, dict[str, Path](), context.tokenizer_folder
    assert at is not None, "the stage before made it"
    begun = {name: context.store.root / path for name, path in context.remembered.get("folders", {}).items()}
    for source in context.recipe.corpus.sources:
        own = {name.removeprefix("cut/"): path for name, path in begun.items() if _is_cut_of(source.name, name)}
        context.cuts |= strata(cut, source.name, own, partial(context.stored, wanted=wanted))
    if tokenizer.end is None and wanted:
        text = "the tokenizer has no token that ends a document: one runs on into the next (tokenizer.specials?)"
        context.report(Notice("warning", text))
    for name, part in context.cuts.items():
        key: Key = {
            "version": SHARD_VERSION,
            "shard_tokens": section.shard_tokens,
            "tokenizer": tokenizer.digest,
            "documents": part.digest("train", source_of(name)),
        }

        def make(folder: Path, name: str = name, part: Cut = part) -> None:
            steps = context.store.root / "steps" / "tokens"
            every = units(part, source_of(name), tokenizer, section.shard_tokens, steps)
            with workers(context) as pool:
                tokenize(every, tokenizer, at, folder, section.shard_tokens, pool)

        folders[name] = context.stored(f"tokens/{name}", key, make, wanted=wanted)
    return folders


def _is_cut_of(source: str, name: str) -> bool:
    kind, _, stratum = name.partition("/")
    return kind == "cut" and source_of(stratum) == source


@contextmanager
def workers(context: Context) -> Iterator[Pool]:
    """Where the corpus' tasks run."""
    scratch = context.store.root / "steps"
    scratch.mkdir(parents=True, exist_ok=True)
    with cast(Engine, context.recipe.corpus.engine.bind()).open(scratch) as pool:
        yield pool


def _pack(context: Context, name: str, folder: Path) -> str:
    """Makes the tables of a source's rows where they are packed, and says what the rows hold."""
    section = context.recipe.tokens
    row = section.row or context.recipe.train.sequence
    cache = Cache(context.store.root / "cache", section.cache_bytes)
    if section.packing == "best_fit" and tokens.unpacked(folder, row):
        with context.store.alone(f"packing/{name}", {"folder": folder.name, "row": row}), workers(context) as pool:
            tokens.pack(folder, row, pool, cache)
    try:
        rows = Rows(folder, row, section.packing, cache)
    except UserError as error:
        error.where = f"tokens of the source {name!r} ({error.where})"
        raise
    return tokens.waste(name, rows)


def keep_recipe(run: RunDirectory, recipe: Recipe) -> str:
    """Writes the recipe with every default, and where each value was said; returns its TOML."""
    toml = recipe.to_toml()
    write(run.recipe, toml)
    origins = {path: str(origin) for path, origin in sorted(recipe.layers.origins.items())}
    write(run.origins, json.dumps(origins, indent=1, ensure_ascii=False) + "\n")
    return toml


def _keep_versions(context: Context) -> None:
    found = {name: version(name) for name in PACKAGES}
    table = {
        "python": platform.python_version(),
        "pretrain": version("pretrain"),
        **found,
        "machine": platform.machine(),
    }
    write(context.run.versions, json.dumps(table, indent=1) + "\n")
