"""How a family is held to its published implementation: logits, gradients and bytes, both ways, and what follows."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from folders import write_folder
from pretrain.generate.cache import KeyValueCache
from pretrain.generate.sample import sample
from pretrain.model.config import INERT, read_config, to_json
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import export, initialise, parameters

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
transformers.logging.disable_progress_bar()

BOUND = 1e-5  # of the largest logit, and of a tensor's largest gradient
LENGTH = 40
FOUND = "found.json"


@dataclass(frozen=True)
class Difference:
    """The largest differences found, relative."""

    ours_of_theirs: float
    theirs_of_ours: float
    gradient: float


def published(table: dict[str, Any]) -> nn.Module:
    """transformers' model of a config.json, every parameter and every kept buffer redrawn: fresh norms are one, fresh
    biases zero, and hide errors."""
    name = table["architectures"][0]
    kind = getattr(transformers, name)
    config = kind.config_class(**{key: value for key, value in table.items() if key != "architectures"})
    config._attn_implementation = "eager"
    model = kind(config).float().eval()
    kept = set(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in kept and tensor.is_floating_point():
                scale = 0.2 if tensor.dim() == 1 else 0.3
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return model


def both_ways(table: dict[str, Any], folder: Path, *, cached: bool = True, floor: float = 0.0) -> Difference:
    """Asserts that our model of a tiny config.json is the published one, and that ours comes back as its own.

    Gradients smaller than `floor` of the largest of all are held to that: a bias of keys has none but rounding.
    """
    theirs = published(table)
    theirs.save_pretrained(folder / "theirs")
    ours, family, config = load_folder(folder / "theirs")
    ours.eval()
    tokens = torch.randint(5, table["vocab_size"], (2, LENGTH), generator=torch.Generator().manual_seed(0))
    here, there = ours.logits(tokens), theirs(tokens).logits  # type: ignore[operator]
    first = apart(here, there)
    assert first <= BOUND, f"logits of the published weights differ by {first:.1e}"

    gradient = gradients(ours, family, config, here, theirs, there, tokens, folder, floor)

    write_folder(folder / "ours", family, ours, config, dtype="float32", end=3)
    back, info = type(theirs).from_pretrained(folder / "ours", attn_implementation="eager", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    second = apart(back(tokens).logits, here)
    assert second <= BOUND, f"logits of the weights that we release differ by {second:.1e}"
    one, two = (tensors(folder / side) for side in ("theirs", "ours"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    if cached:
        the_cache_changes_nothing(ours, tokens, here)
        documents_stay_apart(ours, tokens)
    size = sum(tensor.numel() for tensor in one.values())
    record(folder, family, parameters=size, differences=[first, second, gradient])
    return Difference(first, second, gradient)


def record(folder: Path, family: ModuleType, **facts: object) -> None:
    """Leaves what a test found in its folder, for page.py."""
    test = os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")
    name = family.__name__.rpartition(".")[2]
    (folder / FOUND).write_text(json.dumps({"test": test, "family": name, **facts}))


def generates_as_published(table: dict[str, Any], folder: Path) -> None:
    """Asserts that the best continuation is the published one, with and without the cache, past every window."""
    theirs = published(table)
    theirs.save_pretrained(folder)
    ours, _, _ = load_folder(folder)
    prompt = [7, 11, 13, 17, 19]
    settings = {"max_new_tokens": LENGTH, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    whole = theirs.generate(torch.tensor([prompt]), **settings)  # type: ignore[operator]
    for cached in (True, False):
        assert sample(ours, prompt, tokens=LENGTH, temperature=0, cached=cached)[0] == whole[0, 5:].tolist()


@torch.no_grad()
def sees_both_sides(table: dict[str, Any], folder: Path) -> None:
    """Asserts that a local layer that is not causal, under a masked objective, sees as far ahead as back."""
    published(table).save_pretrained(folder)
    ours, _, config = load_folder(folder)
    tokens = torch.full((1, LENGTH), 7)
    changed = tokens.clone()
    changed[0, 20] = 8
    moved = (ours(tokens, causal=False).hidden - ours(changed, causal=False).hidden).abs().amax(-1)[0] > 0
    reach = config.sliding_window - 1
    assert moved.nonzero()[:, 0].tolist() == list(range(20 - reach, 20 + reach + 1))


def apart(one: Tensor, two: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float(((one - two).abs().max() / two.abs().max()).detach())


def tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by the file's names."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def gradients(
    ours: nn.Module, family: ModuleType, config: Any, here: Tensor,
    theirs: nn.Module, there: Tensor, tokens: Tensor, folder: Path, floor: float,
) -> float:  # fmt: skip
    """The largest relative difference of any gradient, compared under the file's names: theirs are written by its own
    code as if they were weights, ours go through the table."""
    for logits in (here, there):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    rows, axes = family.weights(config), config.axes()
    shell = make(family, config)
    weights = dict(export(ours, rows, axes))
    with torch.no_grad():
        for mine, parameter in zip(shell.parameters(), ours.parameters(), strict=True):
            mine.copy_(torch.zeros_like(mine) if parameter.grad is None else parameter.grad)
        kept = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        theirs.save_pretrained(folder / "gradients")
        theirs.load_state_dict(kept)
    found, worst = tensors(folder / "gradients"), 0.0
    least = floor * max(float(gradient.abs().max()) for gradient in found.values())
    buffers = {name for row in rows if row.buffer for one in row.each() for name, _ in one.pieces(axes)}
    for name, gradient in export(shell, rows, axes):
        if name not in buffers:
            assert found[name].shape == weights[name].shape
            worst = max(worst, relative(gradient, found[name], least))
            assert worst <= BOUND, f"the gradient of {name} differs by {worst:.1e}"
    return worst


def relative(one: Tensor, two: Tensor, least: float) -> float:
    """As `apart`, and nothing for two zeros: an expert that no token chose."""
    return float((one - two).abs().max() / two.abs().max().clamp_min(max(least, 1e-12)))


@torch.no_grad()
def the_cache_changes_nothing(model: nn.Module, tokens: Tensor, whole: Tensor) -> None:
    """Logits part by part through the cache are those of the whole."""
    cache, parts = KeyValueCache(), []
    for part in tokens.split([9, 1, 1, 14, 1, LENGTH - 26], 1):
        parts.append(model.get_submodule("head")(model(part, cache=cache).hidden))
        cache.length += part.shape[1]
    difference = apart(torch.cat(parts, 1), whole)
    assert difference <= BOUND, f"the cache changes logits by {difference:.1e}"


@torch.no_grad()
def documents_stay_apart(model: nn.Module, tokens: Tensor) -> None:
    """Logits of documents in one row are those of each alone, in local layers too."""
    rows = [tokens[0].split([23, 1, 16]), tokens[1].split([3, 9, 28])]
    ids = torch.stack([torch.cat([torch.full((len(one),), i) for i, one in enumerate(row)]) for row in rows])
    positions = torch.stack([torch.cat([torch.arange(len(one)) for one in row]) for row in rows])
    packed = model.get_submodule("head")(model(tokens, positions=positions, documents=ids).hidden)
    alone = torch.stack([torch.cat([model.logits(one[None])[0] for one in row]) for row in rows])  # type: ignore[operator]
    difference = apart(packed, alone)
    assert difference <= BOUND, f"documents in one row change logits by {difference:.1e}"


def starts_as_published(table: dict[str, Any], folder: Path) -> None:
    """Asserts that our first draw has the constants and the spread of the published one, weight by weight."""
    name = table["architectures"][0]
    kind = getattr(transformers, name)
    theirs = kind(kind.config_class(**{key: value for key, value in table.items() if key != "architectures"}))
    theirs.save_pretrained(folder)
    ours, family, config = load_folder(folder)
    initialise(ours, family.weights(config), config.initializer_range, 0)
    found = tensors(folder)
    for name, tensor in export(ours, family.weights(config), config.axes()):
        if float(found[name].std()) == 0:
            assert torch.equal(tensor, found[name]), name
        else:
            few = 5 * (2 * tensor.numel()) ** -0.5  # standard deviations of a standard deviation
            assert float(tensor.std() / found[name].std()) == pytest.approx(1, abs=few + 0.03), name
            assert abs(float(tensor.mean() / tensor.std())) < 5 * tensor.numel() ** -0.5, name


def count(table: dict[str, Any], folder: Path) -> int:
    """Parameters of a published config.json, nothing allocated; what we write of it means the same to transformers."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(table))
    family, config = read_config(folder)
    kind = getattr(transformers, table["architectures"][0]).config_class
    there, back = (meaning(kind, words) for words in (table, to_json(family, config, "float32")))
    for name in there.keys() - INERT - set(getattr(family, "INERT", ())):
        assert back.get(name, False) == there[name], f"{name} = {back.get(name)!r}, published {there[name]!r}"
    size = parameters(family.weights(config), config.axes())
    record(folder, family, published=size)
    return size


def meaning(kind: Any, table: dict[str, Any]) -> dict[str, Any]:
    """What transformers reads in a config.json, a word for each thing."""
    words = kind(**json.loads(json.dumps(table))).to_dict()
    turns = words.get("rope_parameters") or {}
    for one in (turns, *(part for part in turns.values() if isinstance(part, dict))):
        one.pop("type", None)  # the older word for rope_type
    if words.get("head_dim", 0) is None:
        words["head_dim"] = words["hidden_size"] // words["num_attention_heads"]
    return words
