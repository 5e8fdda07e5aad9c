"""What train, evaluate and release share."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.base import remote
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.base.files import write
from pretrain.checkpoint.state import State
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Document
from pretrain.events.kinds import Notice
from pretrain.model.ahead import add_ahead
from pretrain.model.config import read_config
from pretrain.model.extend import Grown
from pretrain.model.folder import materialise, shell
from pretrain.model.narrow import narrowed
from pretrain.model.tensor_files import Tensors
from pretrain.model.transfer import transferred
from pretrain.model.weights import Axis, Place, Weight, expand, matched
from pretrain.objective.objective import Objective
from pretrain.optimizer.optimizer import here
from pretrain.order.batch import Data, Vocabulary, doublings
from pretrain.order.order import ORDER_VERSION, History, Order
from pretrain.order.pack import Rows
from pretrain.order.phases import source_of
from pretrain.order.vocabulary import vocabulary
from pretrain.parallel import launch, schedule
from pretrain.parallel.apply import Ranks
from pretrain.precision.policy import Policy
from pretrain.precision.rounding import Rounding
from pretrain.recipe.recipe import Recipe, tree
from pretrain.run.layout import layout_of, micro_batch, passes
from pretrain.run.mixture import filled, first_history, most_epochs
from pretrain.run.open import checkpoints_of
from pretrain.run.precision import policy_of
from pretrain.run.stages import Context
from pretrain.run.strata import learned
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.shelf import Cache
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.train import machine
from pretrain.train.clock import Clock
from pretrain.train.recompute import recompute
from pretrain.train.step import Steps

MANNER = (  # keys that change no weight
    "log_every", "checkpoint_every", "keep", "evaluate_every", "sample_every", "recompute", "activation_bytes",
)  # fmt: skip


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
        self.policy: Policy = policy_of(self.recipe)
        self.wide: list[str] = []  # matrices that the policy cannot make narrow
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

    @property
    def table(self) -> list[Weight]:
        """All rows, those of modules that the objective adds as well."""
        return [*self.rows, *add_ahead(shell(self.family, self.config), self.rows, self.objective.ahead)]

    def train_key(self, recipe: Recipe) -> dict[str, Any]:
        """What the weights depend on, as plain JSON."""
        section = {name: value for name, value in tree(recipe.train).items() if name not in MANNER and value != []}
        if not self.policy.pure:  # elsewhere it decides nothing, and runs that began without it go on
            section.pop("higher", None)
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

    @property
    def checkpoints(self) -> remote.Place:
        """Where the run's lie."""
        return checkpoints_of(self.run, self.recipe)

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
        lost = self.report if train.guard.lost_shard == "skip" else None
        return Data(order, rows, train.sequence, section.packing != "contiguous", lengths, lost)

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

    def model(self, gathered: torch.dtype = torch.float32) -> tuple[nn.Module, list[Weight]]:
        """This rank's part of the model, with no numbers yet, and its rows: no rank ever has memory for all of it."""
        model, axes = shell(self.family, self.config), self.config.axes()
        rows = [*self.rows, *add_ahead(model, self.rows, self.objective.ahead)]
        self.wide = narrowed(model, rows, axes, self.policy)
        rows = self.ranks.apply(model, rows, axes, gathered)
        materialise(model, rows, self.device)
        return model, rows

    def state(self, data: Data, *, filled: bool = True) -> State:
        """This rank's part of fresh weights from the seed, or of a published folder's; nothing learned yet. If they are
        not filled, a checkpoint is to do it."""
        (model, rows), axes = self.model(self.policy.gathered), self.config.axes()
        folder = self.recipe.model.from_
        theirs = {weight.name for weight in expand(self.rows)} if folder is not None else set()
        if filled:
            own = [weight for weight in rows if weight.name not in theirs]
            self.ranks.draw(model, own, axes, self.config.initializer_range, self.recipe.run.seed)
        if filled and folder is not None:  # `completed` has seen that all but rows for new ids fits
            tensors = Tensors(Path(folder), getattr(self.family, "IGNORED", ()))
            grown = Grown(tensors, self.rows, self.config.vocab_size, self.recipe.run.seed)
            whole = shell(self.family, self.config)
            self._paste(model, rows, axes, matched(whole, self.rows, axes, grown, tensors.where))
        train, layout = self.recipe.train, self.ranks.layout
        kept = schedule.waiting(self.ranks.place("pp"), layout.pp, passes(train, layout), layout.chunks) / layout.chunks
        recompute(model, train.recompute, (train.activation_bytes or 0) / kept, partial(self.ranks.most, among="copy"))
        optimizer = self.recipe.train.optimizer.bind().build(
            model,
            rows,
            here if self.ranks.alone else self.ranks.wholly(rows, axes),
            Rounding(self.recipe.run.seed, self.ranks.places(rows, axes)),
        )
        return State(model, rows, optimizer, 0, 0, data.order.history, axes, self.ranks)

    def opened(self, folder: Path) -> nn.Module:
        """This rank's part of a released folder's model, in float32. Raises UserError."""
        family, config = read_config(folder)
        model, table, axes = shell(family, config), family.weights(config), config.axes()
        rows = self.ranks.apply(model, table, axes)
        materialise(model, rows, self.device)
        tensors = Tensors(folder, getattr(family, "IGNORED", ()))
        self._paste(model, rows, axes, matched(shell(family, config), table, axes, tensors, tensors.where))
        return model.eval()

    def _paste(
        self,
        model: nn.Module,
        rows: Sequence[Weight],
        axes: Mapping[str, Axis],
        found: Iterable[tuple[str, Weight, Place, Tensor]],
    ) -> None:
        """What this rank holds of tensors that were matched to a whole model's weights."""
        here = {weight.name for weight in rows}
        for _, weight, place, value in found:
            if weight.name in here:
                part = value.mT if weight.transpose else value
                self.ranks.paste(model, weight, axes, place, partial(torch.as_tensor, part))

    def steps(self, model: nn.Module, *, compiled: bool) -> Steps:
        """What every step shares."""
        section = self.recipe.train
        return Steps(
            objective=self.objective,
            vocabulary=self.vocabulary,
            policy=self.policy,
            documents=section.mask == "documents",
            clip=section.clip,
            z_loss=section.z_loss,
            micro_batch=micro_batch(section, self.ranks.layout),
            forward=torch.compile(model) if compiled else model,
            sequence=section.sequence,
            ranks=self.ranks,
            balance=section.balance,
            clock=Clock(self.device),
        )

    def divide(self) -> None:
        """Finds the layout of the ranks that were started. Raises UserError where it cannot be."""
        self.ranks = Ranks.of(layout_of(self.recipe, launch.size(), self.config), self.device)

    def warn_of_bubbles(self) -> None:
        """Says so where stages wait for more than they compute."""
        layout = self.ranks.layout
        count = passes(self.recipe.train, layout)
        if count < layout.pp:
            share = schedule.bubble(layout.pp, count, layout.chunks)
            text = f"micro-batches {count} for {layout.pp} stages: {share:.0%} of the time is bubble"
            self.report(Notice("warning", f"{text}; a smaller train.micro_batch, or a larger train.batch, has less"))

    def throw_away(self) -> tuple[State, Steps]:
        """A state to measure steps on."""
        state = self.state(self.data())
        return state, self.steps(state.model, compiled=self.recipe.train.compile == "always")
