"""Closed form: the parts of a model sum to what is counted of the whole, from a recipe, a folder and a checkpoint."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from folders import write_folder
from pretrain.base.extension import find
from pretrain.base.files import seal
from pretrain.cli.main import main
from pretrain.model.anatomy import anatomy
from pretrain.model.count import active_parameters, training_flops_per_token
from pretrain.model.folder import make
from pretrain.model.weights import Weight, parameters
from pretrain.watch.model_page import page, picture

MUTANTS = [
    ("src/pretrain/model/anatomy.py", "held = 0 if row.tied else", "held ="),
    ("src/pretrain/model/anatomy.py", "* layers\n", "\n"),
    ("src/pretrain/model/anatomy.py", "parameters=0 if row.buffer else held", "parameters=held"),
    ("src/pretrain/model/anatomy.py", "4 if row.buffer else SIZES[dtype]", "SIZES[dtype]"),
    ("src/pretrain/model/anatomy.py", "PASSES = 3", "PASSES = 2"),
    ("src/pretrain/model/anatomy.py", "sum(one.flops for one in self.parts) + self", "self"),
]

llama, gpt2 = (find("model.families", name) for name in ("llama", "gpt2"))
CONFIG = llama.Config(
    vocab_size=97, hidden_size=32, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
CONFIGS = {
    "llama": (llama, CONFIG),
    "tied": (llama, replace(CONFIG, tie_word_embeddings=True)),
    "gpt2": (gpt2, gpt2.Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parts_are_the_whole(name: str, tmp_path: Path) -> None:
    family, config = CONFIGS[name]
    found = anatomy(family, config, 64, "bfloat16")
    rows, axes = family.weights(config), config.axes()
    assert found.parameters == found.active == parameters(rows, axes) == active_parameters(rows, axes)
    assert found.parameters == sum(one.numel() for one in make(family, config).parameters())
    assert 3 * found.flops == training_flops_per_token(rows, axes, config.num_hidden_layers, 64)
    write_folder(tmp_path, family, make(family, config), config, dtype="bfloat16", end=None)
    file = (tmp_path / "model.safetensors").read_bytes()
    assert found.bytes == len(file) - 8 - int.from_bytes(file[:8], "little")
    assert {part: sizes[0] for part, sizes in found.by_part().items()}["scores"] == 0
    assert sum(flops for _, _, flops in found.by_part().values()) == found.flops


def test_llama_8b_by_hand() -> None:
    config = replace(
        CONFIG, vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    found = anatomy(llama, config, 8192, "bfloat16")
    assert (found.parameters, found.bytes) == (8_030_261_248, 2 * 8_030_261_248)
    matrices = 8_030_261_248 - 128256 * 4096 - 65 * 4096
    assert found.flops == 2 * matrices + 2 * 32 * 4096 * 8192


def test_of_experts_a_token_meets_the_chosen() -> None:
    axes = {
        "vocab": (11, 1),
        "embed": (8, 1),
        "expert": (6, 1),
        "choice": (6, 1),
        "chosen": (2, 1),
        "expert_mlp": (4, 1),
        "q": (2, 4),
    }
    rows = [
        Weight("embed.weight", "embed", "vocab embed"),
        Weight("blocks.{i}.mlp.up", "up.{i}.{e}", "expert expert_mlp embed", range(3)),
        Weight("blocks.{i}.mlp.bias", "bias.{i}", "choice", range(3), buffer=True),
    ]
    family = SimpleNamespace(ARCHITECTURE="X", weights=lambda config: rows)
    found = anatomy(family, SimpleNamespace(axes=lambda: axes, num_hidden_layers=3), 16, "bfloat16")  # type: ignore[arg-type]
    assert (found.parameters, found.active) == (88 + 3 * 6 * 32, 88 + 3 * 2 * 32)
    assert found.bytes == 2 * found.parameters + 4 * 3 * 6
    assert found.flops == 2 * 3 * 2 * 32 + 2 * 3 * 8 * 16
    assert "active" in page(found, "x")


def test_the_picture_is_drawn_to_scale() -> None:
    family, config = CONFIGS["tied"]
    drawn = ElementTree.fromstring(picture(anatomy(family, config, 64, "float32")))
    boxes = {
        str(box[0].text).partition(":")[0]: box for box in drawn.iter("rect") if len(box) and box[0].tag == "title"
    }
    assert boxes.keys() >= {"embed", "attention.q", "mlp.down", "norm", "head"}

    def area(name: str) -> float:
        return float(boxes[name].attrib["width"]) * float(boxes[name].attrib["height"])

    assert area("embed") / area("attention.q") == pytest.approx((97 / 32) ** 0.5, rel=0.01)
    assert boxes["head"].attrib["fill"] == "none" and "3 layers" in "".join(drawn.itertext())


def test_inspect_shows_a_recipe_a_folder_and_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "llama3_8b"]) == 0  # its corpus is not here
    said = capsys.readouterr().out
    assert "8,030,261,248 parameters" in said and re.search(r"mlp\.gate +14336 × 4096 +32 +1,879,048,192 +23\.4%", said)
    write_folder(tmp_path / "x", llama, make(llama, CONFIG), CONFIG, dtype="float16", end=None, shard_bytes=40_000)
    assert main(["inspect", "x", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["dtype"], table["parameters"]) == ("float16", parameters(llama.weights(CONFIG), CONFIG.axes()))
    for path in (tmp_path / "x").glob("*.safetensors*"):
        path.unlink()
    assert main(["inspect", "x", "--html", "x.html"]) == 0  # its config.json says enough
    assert "<svg" in (tmp_path / "x.html").read_text() and "in float16" in capsys.readouterr().out
    step = tmp_path / "step-00000001"
    step.mkdir()
    keys = {name: value for name, value in vars(CONFIG).items() if value is not None}
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
    source = '[[corpus.sources]]\nname = "a"\nread = "text"\npaths = ["*.txt"]\n'
    (step / "recipe.toml").write_text(
        f'[run]\nname = "a"\n{source}[train]\nsteps = 1\nsequence = 64\n'
        f'[tokenizer]\nkind = "characters"\n[model]\n{lines}'
    )
    (step / "model.safetensors").write_bytes(b"")
    seal(step)
    assert main(["inspect", "step-00000001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == table["parameters"]
    assert main(["inspect", "nowhere", "--json"]) == 2 and capsys.readouterr().err.count("\n") == 1
