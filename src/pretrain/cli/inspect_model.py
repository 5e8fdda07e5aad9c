"""`pretrain inspect` on a model: its weights by part, from a recipe, a released folder, a checkpoint or a run."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.model.anatomy import Anatomy
    from pretrain.recipe.recipe import Recipe

WEIGHTS, CONFIG, RECIPE = "*.safetensors", "config.json", "recipe.toml"


def is_one(path: str) -> bool:
    """Whether a path is a released folder, or its config.json alone, or a checkpoint: a model and nothing greater."""
    here = Path(path)
    return (here / CONFIG).is_file() or ((here / RECIPE).is_file() and any(here.glob(WEIGHTS)))


def show(path: str, *, as_json: bool, page: str | None) -> int:
    """Prints the table of the weights, and writes the page if asked."""
    from pretrain.base.files import write
    from pretrain.watch import model_page

    found = described(path)
    if as_json:
        print(json.dumps(table(found)))
        return 0
    print(model_page.headline(found))
    wide = max(len(one.name) for one in found.parts) + 2
    heads = "".join(f"{name:>16}" for name in model_page.HEADS)
    print(f"{'weight':<{wide}}{'shape':>18}{heads}")
    for one in found.parts:
        cells = "".join(f"{cell:>16}" for cell in model_page.cells(one, found))
        print(f"{one.name:<{wide}}{model_page.shape(one):>18}{cells}")
    print(f"\n{'part':<{wide}}{'parameters':>18}{'active':>16}{'FLOP a token':>16}")
    for part, counts in found.by_part().items():
        shares = [
            count / whole for count, whole in zip(counts, (found.parameters, found.active, found.flops), strict=True)
        ]
        print(f"{part:<{wide}}{shares[0]:>18.1%}{shares[1]:>16.1%}{shares[2]:>16.1%}  {'█' * round(40 * shares[0])}")
    if page:
        write(Path(page), model_page.page(found, Path(path).absolute().name))
        print(f"the page is in {page}")
    return 0


def table(found: "Anatomy") -> dict[str, object]:
    """The anatomy as plain JSON."""
    totals = {"parameters": found.parameters, "active": found.active, "bytes": found.bytes, "flops": found.flops}
    return {**dataclasses.asdict(found), **totals}


def described(path: str) -> "Anatomy":
    """The anatomy of what lies at a path, or of the recipe of that name. Raises UserError."""
    from pretrain.base.extension import find
    from pretrain.model.anatomy import SIZES, anatomy
    from pretrain.model.config import read_config
    from pretrain.model.tensor_files import NAMES, Tensors
    from pretrain.recipe.bind import bind_all
    from pretrain.recipe.read import load
    from pretrain.run.published import completed

    here = Path(path)
    if (here / CONFIG).is_file():
        family, config = read_config(here)
        said = json.loads((here / CONFIG).read_bytes())
        dtype = said.get("dtype") or said.get("torch_dtype") or "float32"
        if any(here.glob(WEIGHTS)):
            kept = Tensors(here).dtypes()
            dtype = NAMES.get(max(kept, key=lambda name: kept[name]), "float32")
        return anatomy(family, config, config.max_position_embeddings, dtype if dtype in SIZES else "float32")
    recipe = completed(load(path))
    bind_all(recipe)
    leaf = recipe.model.family
    config = leaf.bind(**_vocabulary(recipe))
    dtype = "float32" if any(here.glob(WEIGHTS)) else recipe.release.dtype
    return anatomy(find(leaf.kind, leaf.use), config, recipe.train.sequence, dtype)


def _vocabulary(recipe: "Recipe") -> dict[str, int]:
    """The size of the vocabulary, where [model] leaves it to the tokenizer."""
    from pretrain.tokenizer.take_over import take_over

    section = recipe.tokenizer
    if "vocab_size" in recipe.model.family.options:
        return {}
    if section.from_ is None:
        return {"vocab_size": section.ids}
    return {"vocab_size": take_over(section.from_, split=section.split, specials=section.specials).vocab_size}
