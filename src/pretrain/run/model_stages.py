"""The stages that need torch: train, evaluate and release write into the run directory."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.base.files import write
from pretrain.checkpoint import save as checkpoints
from pretrain.checkpoint.state import State
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Document
from pretrain.evaluate import baselines
from pretrain.evaluate.during import estimate, estimate_loss, write_samples
from pretrain.evaluate.held_out import held_out_loss
from pretrain.evaluate.perplexity import likelihood
from pretrain.events.kinds import Changed, Machine, Notice, Plan, Resumed, Score, Stage
from pretrain.model.ahead import add_ahead
from pretrain.model.count import active_parameters, training_flops_per_token
from pretrain.model.extend import Grown
from pretrain.model.folder import make
from pretrain.model.tensor_files import Tensors
from pretrain.model.transfer import transferred
from pretrain.model.weights import Weight, initialise, load, parameters
from pretrain.objective.objective import Objective
from pretrain.optimizer.optimizer import here
from pretrain.order.batch import Data, Vocabulary, doublings
from pretrain.order.order import ORDER_VERSION, History, Order
from pretrain.order.pack import Rows
from pretrain.order.phases import source_of
from pretrain.order.vocabulary import vocabulary
from pretrain.parallel import launch
from pretrain.parallel.apply import Ranks
from pretrain.parallel.layout import refuse, settle
from pretrain.precision.policy import Policy, choose
from pretrain.recipe.read import override
from pretrain.recipe.recipe import Recipe, tree
from pretrain.release.card import card
from pretrain.release.lineage import of_folder
from pretrain.release.release import release
from pretrain.run.changes import LENGTH, changed_paths, may_change, nearest_key
from pretrain.run.facts import facts_of, lineage_of
from pretrain.run.mixture import filled, first_history, most_epochs, outlook
from pretrain.run.stages import Context, keep_recipe
from pretrain.run.store import difference
from pretrain.run.strata import learned
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.shelf import Cache, Shelf
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.train import machine
from pretrain.train.budget import step_seconds
from pretrain.train.loop import Place, train
from pretrain.train.step import Steps

EVALUATE_VERSION, RELEASE_VERSION = 1, 1
MICRO_TOKENS = 16384  # tokens in a forward pass where the recipe does not say
MANNER = ("log_every", "checkpoint_every", "keep", "evaluate_every", "sample_every")  # keys that change no weight


class Work:
    """What train, evaluate and release share: the model, its data, and what stages.json remembers."""

    def __init__(self, context: Context, cut: Cut, tokenizer: Tokenizer, tokens: dict[str, Path]) -> None:
        self.context, self.cut, self.tokenizer, self.tokens = context, cut, tokenizer, tokens
        self.recipe, self.run, self.report = context.recipe, context.run, context.report
        self.remembered = context.remembered
        self.known = self._known()
        leaf = self.recipe.model.family
        self.family: ModuleType = find(leaf.kind, leaf.use)
        self.config = leaf.bind(vocab_size=tokenizer.vocab_size)
        if self.config.vocab_size < tokenizer.vocab_size:
            what = (
                f"model.vocab_size = {self.config.vocab_size} is less than the tokenizer's {tokenizer.vocab_size} ids"
            )
            raise UserError(what, where=str(self.recipe.origin("model.vocab_size")), expected="at least as many")
        self._check_padding()
        self.objective: Objective = self.recipe.train.objective.bind()
        self.rows = self._rows()
        self.vocabulary: Vocabulary = vocabulary(tokenizer, self.config.vocab_size)
        if not self.objective.causal:
            self._refuse_continuation()
        self.device = machine.device()
        self.ranks = Ranks()
        self.policy: Policy = choose(self.recipe.train.precision, self.device)
        if self.recipe.run.threads:
            torch.set_num_threads(self.recipe.run.threads)

    def _check_padding(self) -> None:
        """Raises UserError where a family that counts places by its padding token would take text for padding."""
        pad = getattr(self.config, "pad_token_id", None)
        if pad is not None and pad not in self.tokenizer.specials:
            what = f"model.pad_token_id = {pad} is {self.tokenizer.inner.id_to_token(pad)!r} in the tokenizer: text"
            expected = "a special token of it (tokenizer.from one that has padding there), or another family"
            raise UserError(what, where=str(self.recipe.origin("model.pad_token_id")), expected=expected)

    def _refuse_continuation(self) -> None:
        """Raises UserError where the recipe asks a model that sees both sides to continue a text."""
        asked = {"train.sample_every": self.recipe.train.sample_every, "evaluate.tasks": self.recipe.evaluate.tasks}
        for key in (key for key, value in asked.items() if value):
            what = f"{key}: the objective {self.recipe.train.objective.use} teaches no model to continue a text"
            raise UserError(what, where=str(self.recipe.origin(key)), expected="0" if "every" in key else "[]")

    def _rows(self) -> list[Weight]:
        """The weight table; where settings come from a small model, it says how they differ. Raises UserError."""
        small = self.recipe.train.tuned_on
        if small is None:
            return self.family.weights(self.config)
        if self.objective.ahead:
            what = "train.tuned_on: how settings of modules that look ahead carry over is not known"
            raise UserError(what, where=str(self.recipe.origin("train.tuned_on")), expected="another train.objective")
        return transferred(self.family, self.config, replace(self.config, **small))

    def train_key(self, recipe: Recipe) -> dict[str, Any]:
        """What the weights depend on, as plain JSON."""
        section = {name: value for name, value in tree(recipe.train).items() if name not in MANNER and value != []}
        key = {
            "order": ORDER_VERSION,
            "seed": recipe.run.seed,
            "tokenizer": self.tokenizer.digest,
            "model": tree(recipe.model),
            "train": section,
            "row": recipe.tokens.row,
            "packing": recipe.tokens.packing,
            "sources": self.weights,
            **({"most_epochs": most} if (most := most_epochs(recipe)) else {}),
            "tokens": {name: Catalogue.load(path).digest for name, path in self.tokens.items()},
        }
        return json.loads(json.dumps(key))

    def _known(self) -> dict[str, Path]:
        """The shards of every source, those included that the run has left behind: its past is made of them."""
        before = self.remembered.get("folders", {})
        names = {path.removeprefix("tokens/") for path in before if path.startswith("tokens/")} - self.tokens.keys()
        gone = {name: self.context.store.root / before[f"tokens/{name}"] for name in sorted(names)}
        for name, path in gone.items():
            if not path.exists():
                what = f"tokens of the source {name!r}, which this run has learned from, are gone"
                raise UserError(
                    what, where=str(path), expected="the source in the recipe, as it was, or another run.name"
                )
        now = self.remembered.get("train", {}).get("key", {}).get("tokens", {})
        for name, path in self.tokens.items():
            old = self.context.store.root / before.get(f"tokens/{name}", path)
            if name not in now and old != path and Catalogue.load(old).digest != Catalogue.load(path).digest:
                what = f"the source {name!r} had other documents when this run learned from it"
                raise UserError(what, where=str(old), expected="another name for it, or its files as they were")
        return {**self.tokens, **gone}

    @property
    def gone(self) -> set[str]:
        """Strata that are read no more, of sources that are."""
        return {name for name in self.known.keys() - self.tokens.keys() if source_of(name) in self.weights}

    def remember(self, **facts: object) -> None:
        """Adds to stages.json."""
        self.remembered |= facts
        if not self.ranks.leads:
            return
        write(self.run.stages, json.dumps(self.remembered, indent=1, ensure_ascii=False) + "\n")

    def data(self, history: History | None = None) -> Data:
        """The rows of all sources, in the order of the run."""
        section, train = self.recipe.tokens, self.recipe.train
        row = section.row or train.sequence
        cache = Cache(self.context.store.root / "cache", section.cache_bytes)
        rows = {name: Rows(path, row, section.packing, cache) for name, path in self.known.items()}
        sizes = {name: len(one) for name, one in rows.items()}
        order = Order(self.recipe.run.seed, sizes, history or first_history(train, self.weights, filled(rows), sizes))
        warmup = train.sequence_warmup
        lengths = doublings(warmup.start, train.sequence, warmup.tokens // row) if warmup else ()
        return Data(order, rows, train.sequence, section.packing != "contiguous", lengths)

    @property
    def weights(self) -> dict[str, float]:
        """The weights before any phase: the recipe's; of tokens.from, sources that it does not name count by size."""
        said = {source.name: source.weight for source in self.recipe.corpus.sources}
        if self.recipe.tokens.from_ is None:
            return said
        return {name: said.get(name, float(Catalogue.load(path).tokens)) for name, path in self.tokens.items()}

    def held_out(self) -> Iterator[Document]:
        """Documents that the cut holds out, but those that came to be so after the run had learned from them."""
        seen = learned({name: cut.folder for name, cut in self.context.cuts.items()})
        return (document for document in self.cut.documents("held_out") if document.id not in seen)

    def state(self, data: Data) -> State:
        """Fresh weights from the seed, or a published folder's; nothing learned yet."""
        model = make(self.family, self.config)
        if self.recipe.model.from_ is not None:
            self._fill(model, Path(self.recipe.model.from_))
        else:
            initialise(model, self.rows, self.config.initializer_range, self.recipe.run.seed)
        looks = self.objective.ahead or len(getattr(model, "ahead", ()))
        further = add_ahead(model, self.rows, self.objective.ahead) if looks else []
        initialise(model, further, self.config.initializer_range, self.recipe.run.seed)
        model.to(self.device)
        rows, axes = [*self.rows, *further], self.config.axes()
        self.ranks.apply(model, rows, axes)
        optimizer = self.recipe.train.optimizer.bind().build(
            model, rows, here if self.ranks.alone else self.ranks.wholly(rows, axes)
        )
        return State(model, rows, optimizer, 0, 0, data.order.history, axes, self.ranks)

    def _fill(self, model: nn.Module, folder: Path) -> None:
        """The weights of a released folder, with rows for new ids; `completed` has seen that the rest fits."""
        tensors = Tensors(folder, getattr(self.family, "IGNORED", ()))
        grown = Grown(tensors, self.rows, self.config.vocab_size, self.recipe.run.seed)
        load(model, self.rows, self.config.axes(), grown, tensors.where)

    def steps(self, model: nn.Module, *, compiled: bool) -> Steps:
        """What every step shares."""
        section = self.recipe.train
        samples = section.batch // section.sequence // self.ranks.layout.data
        most = max(MICRO_TOKENS // section.sequence, 1)
        micro = section.micro_batch or next(n for n in range(min(samples, most), 0, -1) if samples % n == 0)
        return Steps(
            objective=self.objective,
            vocabulary=self.vocabulary,
            policy=self.policy,
            documents=section.mask == "documents",
            clip=section.clip,
            z_loss=section.z_loss,
            micro_batch=micro,
            forward=torch.compile(model) if compiled else model,
            sequence=section.sequence,
            ranks=self.ranks,
            balance=section.balance,
        )

    def divide(self) -> None:
        """Finds the layout of the ranks that were started. Raises UserError where it cannot be."""
        section, train = self.recipe.parallel, self.recipe.train
        layout = settle(launch.size(), section.replicate, section.shard, section.tp)
        row = self.recipe.tokens.row or train.sequence
        shortest = train.sequence_warmup.start if train.sequence_warmup else train.sequence
        refuse(layout, self.config.axes(), rows=train.batch // row, sequence=shortest)
        if layout.tp > 1 and self.objective.ahead:
            what = f"the objective {train.objective.use} looks across parts of a sequence"
            raise UserError(f"parallel.tp: {what}", where=str(self.recipe.origin("parallel.tp")), expected="1")
        self.ranks = Ranks(layout, layout.mesh(self.device) if layout.ranks > 1 else None)

    def throw_away(self) -> tuple[State, Steps]:
        """A state to measure steps on."""
        state = self.state(self.data())
        return state, self.steps(state.model, compiled=self.recipe.train.compile == "always")


def walk(context: Context, stages: Sequence[str], cut: Cut, tokenizer: Tokenizer, tokens: dict[str, Path]) -> None:
    """Train, evaluate and release, each where its inputs changed."""
    work = Work(context, cut, tokenizer, tokens)
    key = work.train_key(work.recipe)
    changed = same_run(work, key)
    if launch.rank() > 0:
        train_stage(work, key, changed)
        return
    done = not changed and is_trained(work)
    if "train" in stages:
        if done:
            work.report(Stage("train", "reused", "its last checkpoint is there", str(work.run.checkpoints)))
        elif context.dry:
            started = "train" in work.remembered
            goes_on = f"it goes on from its checkpoint{changed and f'; {changed}'}"
            work.report(Stage("train", "skipped", goes_on if started else "nothing is there yet"))
            forecast(work, key)
        else:
            context.joined = True
            with launch.joined(work.device, together=True):
                train_stage(work, key, changed)
            work.ranks = Ranks()
            done = True
    if context.dry and not done:
        work.report(Notice("info", "what follows train would run as well"))
        return
    if not done:
        raise UserError("train is not done yet", expected="`--to train` first, or no --from and --only")
    key = work.remembered["train"]["key"]
    work.context.recipe = work.recipe = settled(work)
    model_key = {"train": key, "step": work.remembered["train"]["steps"]}
    state: State | None = None
    held = cut.digest("held_out")
    wanted = {
        "evaluate": {
            "version": EVALUATE_VERSION,
            **model_key,
            "evaluate": tree(work.recipe.evaluate),
            "held_out": held,
        },
        "release": {"version": RELEASE_VERSION, **model_key, "release": tree(work.recipe.release)},
    }
    wanted["release"]["scores"] = wanted["evaluate"]
    for name, function in (("evaluate", evaluate_stage), ("release", release_stage)):
        if name not in stages:
            continue
        before = work.remembered.get(name, {}).get("key")
        if before == wanted[name] and (name != "release" or work.run.release.exists()):
            work.report(Stage(name, "reused", "nothing that it is made of changed"))
            continue
        why = difference(before, wanted[name]) if before else "nothing is there yet"
        if context.dry:
            work.report(Stage(name, "skipped", why))
            continue
        work.report(Stage(name, "started", why))
        state = state or trained_state(work)
        facts = function(work, state)
        work.remember(**{name: {"key": wanted[name], **facts}})
        work.report(Stage(name, "finished", why, str(work.run.path)))


def same_run(work: Work, key: dict[str, Any]) -> str:
    """What changed since the run was begun, in words, empty where nothing did.

    Raises UserError where it is another run, with what makes it one and a name that is free.
    """
    before = work.remembered.get("train")
    if before is None or key in (before["key"], before["settled"]):
        return ""
    old = nearest_key((before["key"], before["settled"]), key)
    others = [path for path in changed_paths(old, key) if not may_change(path, old, key)]
    if not others:
        return difference(old, key)
    name = next(
        n for i in range(2, 10_000) if not (work.run.path.parent / (n := f"{work.recipe.run.name}-{i}")).exists()
    )
    what = f"this run was begun with other settings; {difference(old, key, others)}"
    raise UserError(what, where=str(work.run.path), expected=f"the same, or run.name={name} for a run of its own")


def settled(work: Work) -> Recipe:
    """The recipe with what the run filled in: the number of steps and the size of the vocabulary."""
    steps = work.remembered["train"]["steps"]
    return override(work.context.recipe, f"train.steps={steps}", f"model.vocab_size={work.config.vocab_size}")


def is_trained(work: Work) -> bool:
    """Whether the last step's checkpoint is there and whole."""
    if "train" not in work.remembered:
        return False
    found, _ = checkpoints.newest(work.run.checkpoints)
    return found is not None and found.name == f"step-{work.remembered['train']['steps']:08d}"


def train_stage(work: Work, key: dict[str, Any], changed: str) -> None:
    """From the newest whole checkpoint, or from the seed, to the last step."""
    data, section = work.data(), work.recipe.train
    work.divide()
    state = work.state(data)
    peak = machine.matmul_flops_per_second(work.device, work.policy.compute)
    threads = torch.get_num_threads()
    layout = work.ranks.layout
    facts = (work.policy.name, peak, machine.memory_bytes(), layout.ranks, str(layout))
    work.report(Machine(work.device, threads, *facts))
    peak *= layout.ranks
    if work.family.MODEL_TYPE.startswith("pretrain_"):
        text = f"{work.family.ARCHITECTURE} is a family of our own: only pretrain will load the release"
        work.report(Notice("warning", text))
    before = work.remembered.get("train")
    work.report(Stage("train", "started", "it goes on" if before else "nothing is there yet"))
    if before and before["threads"] != threads:
        text = f"{threads} threads instead of {before['threads']}: the last bits of what follows will differ"
        work.report(Notice("warning", text))
    resume(work, state)
    further, axes = work.objective.ahead, work.config.axes()
    rows = [*state.rows, *[row for row in work.rows if row.name == "head.weight"] * further]
    flops = training_flops_per_token(rows, axes, work.config.num_hidden_layers + further, section.sequence)
    work.ranks.wait()  # until all have read what is remembered
    total = work.ranks.agree(plan(work, data, state, key) if before is None or changed else int(before["steps"]))
    data = work.data(state.history)
    fill = filled(data.rows)
    state.history, mixture = outlook(
        work.recipe, work.weights, fill, data.order, state.step, state.position, total, work.gone
    )
    work.remember(history=state.history.to_json())  # steps from here on are traced by it, saved or not
    if before is None or changed:
        work.report(mixture)
        if changed:
            work.report(Changed(state.step, state.position, changed))
        compiled = bool(work.ranks.agree(compiles(work, flops * total * section.batch / peak)))
        begun = {"key": key, "steps": total, "threads": before["threads"] if before else threads, "compiled": compiled}
        if work.recipe.model.from_ is not None:
            begun["from"] = before.get("from") if before else of_folder(Path(work.recipe.model.from_))
        work.remembered["train"] = begun
        work.remember(train={**begun, "settled": work.train_key(settled(work))}, folders=_folders(work))
    toml = keep_recipe(work.run, settled(work)) if work.ranks.leads else ""
    place = Place(work.run.checkpoints, toml, work.report, flops, peak)
    texts = [document.text for document in work.held_out()]
    write_some = write_samples(work.tokenizer, work.recipe.evaluate, work.recipe.run.seed, work.report)
    score = estimate(work.tokenizer, texts, work.recipe.evaluate, section.sequence, work.report)
    if not work.objective.causal:
        size = work.recipe.evaluate.during_bytes
        score = estimate_loss(lambda model: objective_losses(work, model, texts, size), work.report)
    callbacks = [(section.evaluate_every if texts else 0, score), (section.sample_every, write_some)]
    steps = work.steps(state.model, compiled=work.remembered["train"].get("compiled", False))
    train(state, work.data(state.history), section, total, steps, place, callbacks)
    work.report(Stage("train", "finished", "", str(work.run.checkpoints)))


def plan(work: Work, data: Data, state: State, key: dict[str, Any]) -> int:
    """The last step's number: as said, or as many as fit into the budget of seconds, measured.

    A run that goes on keeps its own unless its length changed. Raises UserError where no step is left.
    """
    section, count, seconds = work.recipe.train, parameters(work.rows, work.config.axes()), 0.0
    before = work.remembered.get("train")
    total, why = length(work, state.step, state.position * data.row, key)
    if total is None:
        assert section.seconds is not None, "a recipe says one of the three"
        work.report(Notice("info", f"measuring steps, to see how many fit into {section.seconds:.0f} s"))
        seconds = step_seconds(work.throw_away, data, section)
        total = max(int(section.seconds / seconds), 1)
        why = f"{section.seconds:.0f} s at {seconds:.3f} s a step, measured"
    if before and total <= state.step:
        raise past(state.step, total)
    tokens = state.position * data.row + (total - state.step) * section.batch
    work.report(Plan(total, tokens, count, seconds, why, active_parameters(work.rows, work.config.axes())))
    if section.sequence_warmup and tokens <= section.sequence_warmup.tokens:
        text = f"the run ends in its warm-up, before it learns from sequences of {section.sequence} tokens"
        work.report(Notice("warning", text))
    return total


def length(work: Work, step: int, tokens: int, key: dict[str, Any]) -> tuple[int | None, str]:
    """The last step's number where none needs to be measured, and who says so, after `tokens` in `step` steps."""
    section, before = work.recipe.train, work.remembered.get("train")
    paths = changed_paths(nearest_key((before["key"], before["settled"]), key), key) if before else LENGTH
    recounted = section.tokens is not None and "train.batch" in paths
    if before and not recounted and not any(path in paths for path in LENGTH):
        return int(before["steps"]), "as it was planned"
    if section.seconds is not None:
        return None, ""
    left = (section.tokens or 0) - tokens
    return section.steps or step - (-left // section.batch), "train.steps" if section.steps else "train.tokens"


def forecast(work: Work, key: dict[str, Any]) -> None:
    """Says how often each source would be read, where the length is known without a measurement. Raises UserError."""
    found, _ = checkpoints.newest(work.run.checkpoints)
    data, step, position = work.data(), 0, 0
    if found:
        table = json.loads((found / checkpoints.STATE).read_bytes())
        data, step, position = work.data(History.from_json(table["history"])), table["step"], table["position"]
    total, _ = length(work, step, position * data.row, key)
    if total is None:
        work.report(Notice("info", "how often each source is read is known when train has measured its steps"))
    elif total <= step:
        raise past(step, total)
    else:
        fill = filled(data.rows)
        work.report(outlook(work.recipe, work.weights, fill, data.order, step, position, total, work.gone)[1])


def past(step: int, total: int) -> UserError:
    """Of a run that went further than it is now asked to."""
    what = f"the run stands at step {step:,} already, past the {total:,} asked for"
    return UserError(what, expected="more train.steps, or another run.name for a run of its own")


def compiles(work: Work, peak_seconds: float) -> bool:
    """Whether steps are compiled: decided once, so that a resumed run computes what it would have.

    On a CPU, documents one by one break the graph at each layer, so `auto` leaves it.
    """
    section = work.recipe.train
    if section.compile == "auto" and section.mask == "documents" and work.device == "cpu":
        return False
    compiled, sentence = machine.compiles(section.compile, work.device, peak_seconds)
    if sentence:
        work.report(Notice("info", sentence))
    return compiled


def resume(work: Work, state: State) -> None:
    """Takes over the newest whole checkpoint, if there is one; names those that are damaged."""
    found, damaged = checkpoints.newest(work.run.checkpoints) if work.ranks.leads else (None, {})
    for path, error in damaged.items():
        aside = checkpoints.set_aside(path)
        work.report(Notice("warning", f"a checkpoint is damaged, and set aside as {aside.name}: {error}"))
    if damaged and found is None:
        work.report(Notice("warning", "no whole checkpoint is left: training begins again"))
    step = work.ranks.agree(-1 if found is None else checkpoints.step_of(found))
    if step >= 0:
        found = checkpoints.path_of(work.run.checkpoints, step)
        checkpoints.load(found, state)
        work.report(Resumed(state.step, state.position, str(found)))


def trained_state(work: Work) -> State:
    """The state after the last step."""
    state = work.state(work.data())
    found, _ = checkpoints.newest(work.run.checkpoints)
    assert found is not None, "is_trained saw it"
    checkpoints.load(found, state)
    state.model.eval()
    return state


def evaluate_stage(work: Work, state: State) -> dict[str, object]:
    """Held-out likelihood beside its baselines, and the recipe's tasks."""
    section, scores = work.recipe.evaluate, list[Score]()
    texts, size = list[str](), 0
    for document in work.held_out():
        if size >= section.held_out_bytes:
            break
        texts.append(document.text)
        size += len(document.text.encode())
    if texts and not work.objective.causal:
        for name, value in objective_losses(work, state.model, texts, size).items():
            scores.append(Score(state.step, f"loss, {name}", value, "nats per predicted token", "held out"))
    elif texts:
        found = likelihood(state.model, work.tokenizer, texts, sequence=work.recipe.train.sequence)
        detail: dict[str, object] = {"bytes": found.bytes, "tokens": found.tokens, "documents": found.documents}
        scores.append(Score(state.step, "bits per byte", found.bits_per_byte, "bits", "held out", detail))
        scores.append(Score(state.step, "perplexity", found.perplexity, "per token", "held out", detail))
        if section.baselines:
            ends = [] if work.tokenizer.end is None else [work.tokenizer.end]
            ids = [np.concatenate([one, np.array(ends, np.int32)]) for one in work.tokenizer.encode_batch(texts)]
            unigram = baselines.unigram_bits_per_byte(train_counts(work), ids, size)
            scores.append(Score(0, "bits per byte, unigram baseline", unigram, "bits", "held out"))
            packed = baselines.xz_bits_per_byte(texts)
            scores.append(Score(0, "bits per byte, xz -9 baseline", packed, "bits", "held out"))
    else:
        text = "nothing is held out (corpus.held_out, too few documents?): there is no bits per byte"
        work.report(Notice("warning", text))
    for leaf in section.tasks:
        scores.append(leaf.bind().score(state.model, work.tokenizer, state.step, work.recipe.run.seed))
    for score in scores:
        work.report(score)
    return {"scores": [vars(score) for score in scores]}


def objective_losses(work: Work, model: nn.Module, texts: Sequence[str], size: int) -> dict[str, float]:
    """The objective's own losses on held-out documents, whole ones until `size` bytes are reached."""
    ends = np.array([] if work.tokenizer.end is None else [work.tokenizer.end], np.int32)
    before = np.cumsum([0, *(len(text.encode()) for text in texts)])
    some = work.tokenizer.encode_batch([text for text, at in zip(texts, before, strict=False) if at < size])
    train = work.recipe.train
    return held_out_loss(
        model, work.objective, work.vocabulary, [np.concatenate([ids, ends]) for ids in some],
        sequence=train.sequence, seed=work.recipe.run.seed, apart=train.mask == "documents",
    )  # fmt: skip


def train_counts(work: Work) -> np.ndarray:
    """How often each id stands in the training shards, int64 [vocab]."""
    counts = np.zeros(work.config.vocab_size, np.int64)
    for path in work.tokens.values():
        catalogue = Catalogue.load(path)
        for number in range(len(catalogue.shards)):
            counts += np.bincount(Shelf(catalogue).shard(number).tokens, minlength=len(counts))
    return counts


def release_stage(work: Work, state: State) -> dict[str, object]:
    """The released folder, proved on rows of the run."""
    section, recipe = work.recipe.release, work.recipe
    lineage = lineage_of(work.run, recipe, state.step, state.position)
    causal = work.objective.causal
    facts = facts_of(work.run, recipe, work.family, work.config, lineage, causal=causal)
    proof = torch.from_numpy(work.data().batch(0, 2).tokens[:2]).to(work.device)
    done = release(
        work.run.release, work.family, work.config, state.model, work.tokenizer,
        dtype=section.dtype, shard_bytes=section.shard_bytes, card=card(facts), lineage=lineage, proof=proof,
        causal=causal,
    )  # fmt: skip
    work.report(done)
    return {"digest": done.digest}


def _folders(work: Work) -> dict[str, str]:
    root = work.context.store.root
    found = {"corpus": work.cut.folder, "tokenizer": work.context.tokenizer_folder}
    found |= {f"tokens/{name}": path for name, path in work.known.items()}
    found |= {f"cut/{name}": cut.folder for name, cut in work.context.cuts.items()}
    left = {name: path for name, path in work.remembered.get("folders", {}).items() if name.startswith("cut/")}
    return left | {name: str(path.relative_to(root)) for name, path in found.items() if path is not None}
