"""The same small model on several cuts of data: runs of one budget, scored on text that none of them saw.

The filters of FineWeb (Penedo et al. 2024, arXiv 2406.17557, 3.1) and DataComp-LM (Li et al. 2024, arXiv 2406.11794)
were chosen so. Members are ordinary runs in `runs/<name>/<cut>-<seed>`: what is done stays done, stages are shared.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.base.files import digest_of, write
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import WORD
from pretrain.corpus.words import hashes, runs
from pretrain.evaluate.compare import Ablation, Facts, Measure
from pretrain.evaluate.perplexity import likelihood
from pretrain.events.directory import RunDirectory
from pretrain.events.kinds import Event
from pretrain.recipe.read import override
from pretrain.recipe.recipe import Recipe, tree
from pretrain.run.open import open_model
from pretrain.run.stages import execute
from pretrain.run.store import difference, flatten
from pretrain.shards.catalogue import Catalogue

WORDS = 13  # in a run of words by which copies are known (Brown et al. 2020, arXiv 2005.14165, C)
COPIED = 0.5  # share of a text's runs that training documents may hold
OF_A_CUT = ("corpus.", "run.name", "release.")  # keys that may differ
LOWER = ("bits", "nats", "per token", "per byte")  # units of which less is better


@dataclass(frozen=True)
class Member:
    """The run of a cut with a seed."""

    cut: str
    seed: int
    run: RunDirectory

    @property
    def stages(self) -> dict:
        """What stages.json says of it."""
        return json.loads(self.run.stages.read_bytes())

    @property
    def documents(self) -> Cut:
        """Its cut."""
        return Cut(self.run.store / self.stages["folders"]["corpus"])


def ablate(
    recipes: Mapping[str, Recipe],
    folder: Path,
    seeds: int,
    data: Sequence[Path] = (),
    say: Callable[[str], None] = lambda said: None,
    subscribers: Sequence[Callable[[Event], None]] = (),
) -> Ablation:
    """Trains every cut with every seed, scores them on one text, and returns all values. Raises UserError."""
    check(recipes)
    notes = _notes(recipes, folder)
    first = next(iter(recipes.values()))
    chosen = tuple(first.run.seed + i for i in range(seeds))
    members: dict[int, list[Member]] = {seed: [] for seed in chosen}
    for number, seed in enumerate(chosen):
        for i, (cut, recipe) in enumerate(recipes.items()):
            say(f"[{number * len(recipes) + i + 1}/{seeds * len(recipes)}] {cut}, seed {seed}")
            run = RunDirectory(folder.absolute() / f"{cut}-{seed}")
            more = [f"run.name={json.dumps(run.path.name)}", f"run.seed={seed}"]
            if i and first.tokenizer.from_ is None:  # one tokenizer for all, so that a token is a token
                words = members[seed][0].run.store / members[seed][0].stages["folders"]["tokenizer"]
                more.append(f"tokenizer.from={json.dumps(str(words))}")
            execute(override(recipe, *more), run.path, last="evaluate", subscribers=subscribers)
            members[seed].append(Member(cut, seed, run))
    counts = np.zeros(3, int)  # texts, bytes, and texts left out
    for group in members.values():
        texts, copies = common(group, data, first.evaluate.held_out_bytes)
        counts += [len(texts), sum(len(text.encode()) for text in texts), copies]
        for member in group:
            _score(member, texts, first.train.sequence, notes, folder)
    every = [member for group in members.values() for member in group]
    return Ablation(
        name=folder.name,
        seeds=chosen,
        budget=every[0].stages["train"]["steps"] * first.train.batch,
        held_out=_words(*counts.tolist(), given=bool(data)),
        facts=tuple(_facts(cut, [one for one in every if one.cut == cut]) for cut in recipes),
        measures=_measures(every, notes["scores"], list(recipes)),
    )


def check(recipes: Mapping[str, Recipe]) -> None:
    """Raises UserError where recipes differ in more than their cuts, or say no budget of tokens."""
    if len(recipes) < 2:
        raise UserError("one cut cannot be compared", expected="two recipes or more")
    (name, first), *others = recipes.items()
    if first.train.seconds is not None:
        where = str(first.origin("train.seconds"))
        raise UserError("train.seconds is no budget of tokens", where=where, expected="train.tokens or train.steps")
    for other, recipe in others:
        one, two = (dict(flatten(tree(each))) for each in (first, recipe))
        paths = [path for path in one.keys() | two.keys() if one.get(path) != two.get(path)]
        if wrong := sorted(path for path in paths if not path.startswith(OF_A_CUT)):
            what = f"{name} and {other} differ in more than their data; {difference(tree(first), tree(recipe), wrong)}"
            raise UserError(what, expected="recipes that differ in [corpus] alone")


def common(members: Sequence[Member], data: Sequence[Path], most: int) -> tuple[list[str], int]:
    """Texts up to `most` bytes that no member trained on, nor on copies of them; how many were left out as copies.

    Files, if they are named; or else the documents that every cut keeps and holds out, with the same text. So no cut is
    judged by documents that another one has thrown away. Raises UserError where nothing is left.
    """
    cuts = [member.documents for member in members]
    if data:
        texts = [_read(path) for path in data]
    else:
        shared = {one.id: one.text for one in cuts[0].documents("held_out")}
        for cut in cuts[1:]:
            theirs = {one.id: one.text for one in cut.documents("held_out")}
            shared = {name: text for name, text in shared.items() if theirs.get(name) == text}
        texts = list(shared.values())
    fresh = without_copies(texts, cuts)
    if not fresh:
        what = f"of {len(texts)} texts that are held out by all, {len(texts)} are short or copied in training documents"
        what = what if texts else "no document is held out by every cut"
        raise UserError(what, expected="more corpus.held_out, or --data FILES that none trained on")
    out, size = list[str](), 0
    for text in fresh:
        if size < most:
            out.append(text)
            size += len(text.encode())
    return out, len(texts) - len(fresh)


def without_copies(texts: Sequence[str], cuts: Sequence[Cut]) -> list[str]:
    """The texts of which training documents hold at most half of the runs of 13 words; shorter ones are left out."""
    owned = [runs(hashes([word.lower() for word in WORD.findall(text)]), WORDS) for text in texts]
    keys = np.unique(np.concatenate([np.zeros(0, np.uint64), *owned]))
    seen = np.zeros(len(keys) + 1, bool)
    for cut in {cut.folder: cut for cut in cuts}.values():
        for document in cut.documents("train"):
            here = runs(hashes([word.lower() for word in document.words]), WORDS)
            at = np.searchsorted(keys, here)
            seen[at[keys[np.minimum(at, len(keys) - 1)] == here] if len(keys) else []] = True
    shares = [seen[np.searchsorted(keys, one)].mean() if len(one) else 1.0 for one in owned]
    return [text for text, share in zip(texts, shares, strict=True) if share <= COPIED]


def _words(texts: int, size: int, copies: int, *, given: bool) -> str:
    what = "of --data" if given else "that every cut keeps and holds out"
    left = f"; {copies:,} more are short, or copied in what a member trained on" if copies else ""
    return f"{texts:,} texts ({size:,} bytes, over all seeds) {what}{left}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError("cannot be read", where=str(path), expected="a UTF-8 text file") from None


def _notes(recipes: Mapping[str, Recipe], folder: Path) -> dict:
    """ablation.json: what each cut was, and the scores so far. Raises UserError where a cut is another now."""
    path = folder / "ablation.json"
    notes = json.loads(path.read_bytes()) if path.exists() else {"cuts": {}, "scores": {}}
    for cut, recipe in recipes.items():
        now = json.loads(json.dumps(tree(recipe)))
        before = notes["cuts"].setdefault(cut, now)
        if before != now:
            what = f"{cut} was another recipe when this ablation was begun; {difference(before, now)}"
            raise UserError(what, where=str(folder), expected="the same, or another --name")
    write(path, json.dumps(notes, indent=1))
    return notes


def _score(member: Member, texts: Sequence[str], sequence: int, notes: dict, folder: Path) -> None:
    """Bits per byte of the texts, noted; not measured again where neither the model nor the texts changed."""
    key = digest_of([member.stages["train"]["settled"], list(texts)])
    if notes["scores"].get(member.run.path.name, {}).get("key") != key:
        model, _, _, tokenizer = open_model(member.run.path)
        found = likelihood(model, tokenizer, texts, sequence=sequence)
        notes["scores"][member.run.path.name] = {"key": key, "bits_per_byte": found.bits_per_byte}
        write(folder / "ablation.json", json.dumps(notes, indent=1))


def _facts(cut: str, members: Sequence[Member]) -> Facts:
    documents, tokens, epochs = 0, 0, 0.0
    for member in members:
        stages = member.stages
        documents += sum(one["train"]["documents"] for one in member.documents.summary.values())
        folders = [path for name, path in stages["folders"].items() if name.startswith("tokens/")]
        held = sum(Catalogue.load(member.run.store / path).tokens for path in folders)
        tokens += held
        epochs += stages["train"]["steps"] * stages["train"]["key"]["train"]["batch"] / held
    return Facts(cut, documents / len(members), tokens / len(members), epochs / len(members))


def _measures(members: Sequence[Member], scores: Mapping[str, dict], cuts: Sequence[str]) -> tuple[Measure, ...]:
    """Bits per byte on the common text, and what the recipe's tasks said of each member."""
    bits = {cut: [scores[one.run.path.name]["bits_per_byte"] for one in members if one.cut == cut] for cut in cuts}
    tasks: dict[tuple[str, str], dict[str, list[float]]] = {}
    for member in members:
        for score in member.stages["evaluate"]["scores"]:
            if score["step"] and score["split"] != "held out":
                values = tasks.setdefault((score["name"], score["unit"]), {cut: [] for cut in cuts})
                values[member.cut].append(score["value"])
    found = [Measure(name, unit, unit in LOWER, values) for (name, unit), values in tasks.items()]
    return (Measure("bits per byte", "bits", True, bits), *found)
