"""The stages that need torch: train, evaluate and release write into the run directory."""

import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.base.errors import DamagedError, UserError
from pretrain.base.files import partial_of, verify
from pretrain.base.remote import Place as Folder
from pretrain.checkpoint import save as checkpoints
from pretrain.checkpoint.state import State
from pretrain.corpus.cut import Cut
from pretrain.evaluate.during import estimate, estimate_loss, write_samples
from pretrain.events.goodput import accounts
from pretrain.events.kinds import Changed, Machine, Notice, Plan, Resumed, Stage
from pretrain.events.read import read
from pretrain.model.count import active_parameters, training_flops_per_token
from pretrain.model.weights import parameters
from pretrain.order.batch import Data
from pretrain.order.order import History
from pretrain.parallel import launch
from pretrain.parallel.apply import Ranks
from pretrain.recipe.read import override
from pretrain.recipe.recipe import Recipe, tree
from pretrain.release.card import card
from pretrain.release.lineage import of_folder
from pretrain.release.release import agree, release
from pretrain.run.changes import LENGTH, changed_paths, may_change, nearest_key
from pretrain.run.facts import facts_of, lineage_of
from pretrain.run.health import check_health
from pretrain.run.mixture import filled, outlook
from pretrain.run.open import Checkpoint
from pretrain.run.precision import stays_wide, within
from pretrain.run.scores import objective_losses, scores
from pretrain.run.stages import Context, keep_recipe
from pretrain.run.store import difference
from pretrain.run.work import Work
from pretrain.tokenizer.tokenizer import Tokenizer
from pretrain.train import machine
from pretrain.train.budget import step_seconds
from pretrain.train.loop import Place, train

EVALUATE_VERSION, RELEASE_VERSION = 1, 1
UNCHANGED = "nothing that it is made of changed"


def walk(context: Context, stages: Sequence[str], cut: Cut, tokenizer: Tokenizer, tokens: dict[str, Path]) -> None:
    """Train, evaluate and release, each where its inputs changed: the leading rank says which, all take part."""
    work = Work(context, cut, tokenizer, tokens)
    key = work.train_key(work.recipe)
    changed = same_run(work, key)
    if launch.rank() > 0:
        together(work, key, changed, ())
        return
    done = not changed and is_trained(work)
    if "train" in stages and done:
        work.report(Stage("train", "reused", "its last checkpoint is there", str(work.checkpoints)))
    if context.dry:
        foretell(work, key, changed, stages, done=done)
        return
    if "train" not in stages and not done:
        raise UserError("train is not done yet", expected="`--to train` first, or no --from and --only")
    left = [name for name in stages if (not done if name == "train" else name in LAST)]
    if done and not any(changed_since(work, name) for name in left):
        for name in left:
            work.report(Stage(name, "reused", UNCHANGED))
        return
    context.joined = True
    with launch.joined(work.device, together=True):
        together(work, key, changed, left)
    work.ranks = Ranks()


def foretell(work: Work, key: dict[str, Any], changed: str, stages: Sequence[str], *, done: bool) -> None:
    """What `walk` would do, and why."""
    if "train" in stages and not done:
        goes_on = f"it goes on from its checkpoint{changed and f'; {changed}'}"
        started = "train" in work.remembered
        work.report(Stage("train", "skipped", goes_on if started else "nothing is there yet"))
        forecast(work, key)
    if not done:
        work.report(Notice("info", "what follows train would run as well"))
        return
    for name in (name for name in stages if name in LAST):
        why = changed_since(work, name)
        work.report(Stage(name, "skipped" if why else "reused", why or UNCHANGED))


def together(work: Work, key: dict[str, Any], changed: str, stages: Sequence[str]) -> None:
    """What all ranks do, of `stages` that the leading one names."""
    work.divide()
    if work.ranks.any("train" in stages):
        train_stage(work, key, changed)
    model: nn.Module | None = None
    for name, function in LAST.items():
        why = changed_since(work, name) if name in stages else ""
        if not work.ranks.any(bool(why)):
            if name in stages:
                work.report(Stage(name, "reused", UNCHANGED))
            continue
        work.report(Stage(name, "started", why))
        start, wanted = time.monotonic(), key_of(work, name)
        model = trained(work) if model is None else model
        facts = function(work, model)
        work.remember(**{name: {"key": wanted, **facts}})
        work.report(Stage(name, "finished", why, str(work.run.path), time.monotonic() - start))


def key_of(work: Work, name: str) -> dict[str, Any]:
    """What evaluate or release is made of, once train is done."""
    train = work.remembered["train"]
    model = {"train": train["key"], "step": train["steps"]}
    asked = {"evaluate": tree(work.recipe.evaluate), "held_out": work.cut.digest("held_out")}
    scored = {"version": EVALUATE_VERSION, **model, **asked}
    if name == "evaluate":
        return scored
    return {"version": RELEASE_VERSION, **model, "release": tree(work.recipe.release), "scores": scored}


def changed_since(work: Work, name: str) -> str:
    """Why evaluate or release is to be done, once train is; empty where nothing changed."""
    before, wanted = work.remembered.get(name, {}).get("key"), key_of(work, name)
    if before is None or (name == "release" and not work.run.release.exists()):
        return "nothing is there yet"
    return "" if before == wanted else difference(before, wanted)


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
    try:
        verify(last_of(work))
    except DamagedError:
        return False
    return True


def last_of(work: Work) -> Folder:
    """The last step's checkpoint."""
    return checkpoints.path_of(work.checkpoints, work.remembered["train"]["steps"])


def train_stage(work: Work, key: dict[str, Any], changed: str) -> None:
    """From the newest whole checkpoint, or from the seed, to the last step."""
    data, section = work.data(), work.recipe.train
    work.warn_of_bubbles()
    check_health(work)
    peak = machine.matmul_flops_per_second(work.device, work.policy.compute)
    threads = torch.get_num_threads()
    layout = work.ranks.layout
    name = machine.device_name(work.device)
    vendor = machine.vendor_flops_per_second(name, work.policy.name)
    facts = (work.policy.name, peak, machine.memory_bytes(), layout.ranks, str(layout), name, vendor)
    work.report(Machine(work.device, threads, *facts))
    peak, vendor = peak * layout.ranks, vendor * layout.ranks
    if work.family.MODEL_TYPE.startswith("pretrain_"):
        text = f"{work.family.ARCHITECTURE} is a family of our own: only pretrain will load the release"
        work.report(Notice("warning", text))
    before = work.remembered.get("train")
    work.report(Stage("train", "started", "it goes on" if before else "nothing is there yet"))
    start = time.monotonic()
    if before and before["threads"] != threads:
        text = f"{threads} threads instead of {before['threads']}: the last bits of what follows will differ"
        work.report(Notice("warning", text))
    state = begin(work, data)
    if work.wide:
        work.report(stays_wide(work.wide, work.policy))
    further, axes = work.objective.ahead, work.config.axes()
    table = state.rows if work.ranks.layout.pp == 1 else work.table  # a stage has rows of its own only
    rows = [*table, *[row for row in work.rows if row.name == "head.weight"] * further]
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
    limits = work.recipe.run.hang, work.recipe.run.notice
    place = Place(work.checkpoints, toml, work.report, flops, peak, work.run, *limits, vendor)
    texts = [document.text for document in work.held_out()]
    write_some = write_samples(work.tokenizer, work.recipe.evaluate, work.recipe.run.seed, work.report)
    score = estimate(work.tokenizer, texts, work.recipe.evaluate, section.sequence, work.report)
    if not work.objective.causal:
        size = work.recipe.evaluate.during_bytes
        score = estimate_loss(lambda model: objective_losses(work, model, texts, size), work.report)
    calls = [(section.evaluate_every if texts else 0, score), (section.sample_every, write_some)]
    callbacks = [(every, within(work.policy, call)) for every, call in calls]
    steps = work.steps(state.model, compiled=work.remembered["train"].get("compiled", False))
    train(state, work.data(state.history), section, total, steps, place, callbacks)
    if work.ranks.leads:
        work.report(accounts(read(work.run)))
    work.report(Stage("train", "finished", "", str(work.checkpoints), time.monotonic() - start))


def plan(work: Work, data: Data, state: State, key: dict[str, Any]) -> int:
    """The last step's number: as said, or as many as fit into the budget of seconds, measured.

    A run that goes on keeps its own unless its length changed. Raises UserError where no step is left.
    """
    section, count, seconds = work.recipe.train, parameters(work.rows, work.config.axes()), 0.0
    before = work.remembered.get("train")
    learned = state.history.learned(state.position) * data.row
    total, why = length(work, state.step, learned, key)
    if total is None:
        assert section.seconds is not None, "a recipe says one of the three"
        work.report(Notice("info", f"measuring steps, to see how many fit into {section.seconds:.0f} s"))
        seconds = step_seconds(work.throw_away, data, section)
        total = max(int(section.seconds / seconds), 1)
        why = f"{section.seconds:.0f} s at {seconds:.3f} s a step, measured"
    if before and total <= state.step:
        raise past(state.step, total)
    tokens = learned + (total - state.step) * section.batch
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
    found, _ = checkpoints.newest(work.checkpoints)
    data, step, position = work.data(), 0, 0
    if found:
        table = json.loads((found / checkpoints.STATE).read_bytes())
        data, step, position = work.data(History.from_json(table["history"])), table["step"], table["position"]
    total, _ = length(work, step, data.order.history.learned(position) * data.row, key)
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


def begin(work: Work, data: Data) -> State:
    """The newest whole checkpoint's, if there is one, or fresh weights; names checkpoints that are damaged."""
    found, damaged = checkpoints.newest(work.checkpoints, work.ranks)
    if found is None and len(damaged) > 1:  # no accident of one write, and perhaps months
        what = f"all {len(damaged)} checkpoints are damaged: {next(iter(damaged.values()))}"
        expected = "one of them restored, or all moved away for training to begin again"
        raise UserError(what, where=str(work.checkpoints), expected=expected)
    for path, error in damaged.items() if work.ranks.leads else ():
        aside = checkpoints.set_aside(path)
        work.report(
            Notice(
                "warning", f"a checkpoint is damaged, and set aside as {aside.name} until a newer one is whole: {error}"
            )
        )
    if damaged and found is None:
        work.report(Notice("warning", "no whole checkpoint is left: training begins again"))
    state = work.state(data, filled=found is None)
    if found is not None:
        if "train" not in work.remembered and work.recipe.run.checkpoints is not None:
            raise UserError("checkpoints of another run", where=str(found), expected="another run.name for this one")
        checkpoints.load(found, state)
        layouts = str(work.ranks.layout), checkpoints.layout_of(found)
        work.report(Resumed(state.step, state.position, str(found), *layouts))
    return state


def trained(work: Work) -> nn.Module:
    """This rank's part of the model after the last step."""
    gc.collect()  # what training held is in cycles, and there may be no room for both
    model, rows = work.model()
    checkpoints.fill(last_of(work), model, rows, work.config.axes(), work.ranks)  # verified when written, or since
    return model.float().eval()  # what is bfloat16 is so exactly


def evaluate_stage(work: Work, model: nn.Module) -> dict[str, object]:
    """Scores of the model after the last step."""
    found = scores(work, model, work.remembered["train"]["steps"])
    for score in found:
        work.report(score)
    return {"scores": [vars(score) for score in found]}


def release_stage(work: Work, model: nn.Module) -> dict[str, object]:
    """The released folder, written by the leading rank as it reads the checkpoint, and proved by all."""
    recipe, causal, folder = settled(work), work.objective.causal, work.run.release
    tokens = torch.from_numpy(work.data().batch(0, 2).tokens[:2])

    def prove(partial: Path) -> float:
        work.ranks.wait()  # until it is written
        back = work.opened(partial)
        work.ranks.wait()  # until all have read it: it moves
        return agree(model, back, tokens, recipe.release.dtype, partial, causal=causal)

    if not work.ranks.leads:
        prove(partial_of(folder))
        return {}
    saved = Checkpoint(last_of(work), work.run, recipe, work.family, work.config)
    lineage = lineage_of(work.run, recipe, saved.state["step"], saved.learned)
    facts = facts_of(work.run, recipe, work.family, work.config, lineage, causal=causal)
    done = release(
        folder, work.family, work.config, saved.weight, work.tokenizer, dtype=recipe.release.dtype,
        shard_bytes=recipe.release.shard_bytes, card=card(facts), lineage=lineage, prove=prove, causal=causal,
    )  # fmt: skip
    work.report(done)
    return {"digest": done.digest}


LAST = {"evaluate": evaluate_stage, "release": release_stage}


def _folders(work: Work) -> dict[str, str]:
    root = work.context.store.root
    found = {"corpus": work.cut.folder, "tokenizer": work.context.tokenizer_folder}
    found |= {f"tokens/{name}": path for name, path in work.known.items()}
    found |= {f"cut/{name}": cut.folder for name, cut in work.context.cuts.items()}
    left = {name: path for name, path in work.remembered.get("folders", {}).items() if name.startswith("cut/")}
    return left | {name: str(path.relative_to(root)) for name, path in found.items() if path is not None}
