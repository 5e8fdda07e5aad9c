"""Oracle: what transformers saved comes in whole, and what we wrote of it transformers loads, the same numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles import test_deepseek, test_experts, test_gemma, test_gpt2, test_llama, test_mistral, test_olmo, test_qwen
from oracles.family import apart, published, tensors
from pretrain.base.errors import DamagedError, UserError
from pretrain.cli.main import main
from pretrain.model.anatomy import anatomy
from pretrain.model.config import read_config
from pretrain.model.folder import load_folder
from pretrain.recipe.read import load
from pretrain.release.bring import bring
from pretrain.run.published import completed
from pretrain.tokenizer.bpe import train

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")

MUTANTS = [
    ("src/pretrain/release/bring.py", 'dtype = dtype or kept', 'dtype = dtype or "float32"'),
    ("src/pretrain/release/bring.py", "if (source / GENERATION).is_file():", "if False:"),
    ("src/pretrain/release/bring.py", "if tokenizer.vocab_size > config.vocab_size:", "if False:"),
    ("src/pretrain/release/bring.py", 'name.endswith("_token_id") or name == IS_CAUSAL', "name == IS_CAUSAL"),
    ("src/pretrain/release/bring.py", "verify(source)", "pass"),
    ("src/pretrain/model/weights.py", "elif not torch.equal(value, tensors[named[weight.tied]].to(value.dtype)):",
     "elif False:"),
]  # fmt: skip
TABLES: dict[str, dict[str, Any]] = {
    "llama": {**test_llama.SMALL, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": [2, 3]},
    "llama, tied": {**test_llama.SMALL, "tie_word_embeddings": True},
    "gpt2": test_gpt2.SMALL,
    "qwen3": {**test_qwen.SMALL, "architectures": ["Qwen3ForCausalLM"], "head_dim": 8},
    "mistral": {**test_mistral.SMALL, **test_mistral.VARIATIONS["window"]},
    "gemma3": {**test_gemma.SMALL, **test_gemma.VARIATIONS["three, stretched"]},
    "olmo3": {**test_olmo.SMALL, **test_olmo.VARIATIONS["three"]},
    "mixtral": test_experts.MIXTRAL,
    "qwen3_moe": test_experts.VARIATIONS["Qwen3, every other layer"],
    "gpt_oss": test_experts.OSS,
    "deepseek_v3": {**test_deepseek.SMALL, **test_deepseek.VARIATIONS["two shared, all layers"]},
}
MORE = """
[run]
name = "more"
[[corpus.sources]]
name = "notes"
read = "text"
paths = ["*.txt"]
[model]
from = "b"
[train]
steps = 1
"""
TEXTS = ["the quick brown fox, and other words of a text " * 3] * 20


def source(table: dict[str, Any], folder: Path, **options: Any) -> torch.nn.Module:
    """A folder that transformers wrote, and its model."""
    theirs = published(table)
    theirs.save_pretrained(folder, **options)
    return theirs


@pytest.mark.parametrize("name", TABLES)
def test_all_numbers_come_through_in_shards(name: str, tmp_path: Path) -> None:
    theirs = source(TABLES[name], tmp_path / "a", max_shard_size="20kB")
    found = bring(tmp_path / "a", tmp_path / "b", shard_bytes=30_000, proved=True)
    assert found.logit_difference == 0 and found.dtypes.keys() == {"float32"} and found.ids is None
    assert found.parameters == sum(one.numel() for one in theirs.parameters())
    one, two = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    back, info = type(theirs).from_pretrained(tmp_path / "b", attn_implementation="eager", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tokens = torch.arange(40).view(2, 20)
    assert torch.equal(back(tokens).logits, theirs(tokens).logits)  # type: ignore[operator]
    family, config = read_config(tmp_path / "b")
    assert anatomy(family, config, 32, "float32").parameters == found.parameters
    (tmp_path / "more.toml").write_text(MORE)
    recipe = completed(load(str(tmp_path / "more.toml")))
    assert recipe.model.family.bind() == config
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load(str(tmp_path / "again.toml")).model.family.bind() == config
    asked = ("bos_token_id", "eos_token_id", "pad_token_id")
    configs = [json.loads((tmp_path / side / "config.json").read_bytes()) for side in "ab"]
    assert [configs[0].get(key) for key in asked] == [configs[1].get(key) for key in asked]
    assert (tmp_path / "a/generation_config.json").read_bytes() == (tmp_path / "b/generation_config.json").read_bytes()


def test_the_dtype_is_kept_or_chosen(tmp_path: Path) -> None:
    theirs = source(TABLES["llama"], tmp_path / "a")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    assert bring(tmp_path / "half", tmp_path / "b").dtypes.keys() == {"bfloat16"}
    one, two = tensors(tmp_path / "half"), tensors(tmp_path / "b")
    assert all(two[key].dtype is torch.bfloat16 and torch.equal(one[key], two[key]) for key in one)
    found = bring(tmp_path / "a", tmp_path / "c", dtype="float16", proved=True)
    assert found.logit_difference is not None and 1e-6 < found.logit_difference < 4e-3
    assert all(
        torch.equal(tensors(tmp_path / "a")[key].half(), value) for key, value in tensors(tmp_path / "c").items()
    )


def test_lineage_card_and_tokenizer_stand_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = source({**TABLES["llama"], "vocab_size": 300}, tmp_path / "a")
    train(TEXTS, 280, reserved=4).save(tmp_path / "a")
    config = json.loads((tmp_path / "a/tokenizer_config.json").read_bytes())
    (tmp_path / "a/tokenizer_config.json").write_text(json.dumps({**config, "auto_map": {"AutoTokenizer": "x.Y"}}))
    assert main(["import", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--shard", "20kB", "--prove"]) == 0
    said = capsys.readouterr().out
    assert "every tensor is there" in said and "differ by 0.0e+00" in said and "tokenizer of 280 ids" in said
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert (
        tokenizer("the quick fox").input_ids
        == transformers.AutoTokenizer.from_pretrained(tmp_path / "a")("the quick fox").input_ids
    )
    assert "auto_map" not in (tmp_path / "b/tokenizer_config.json").read_text()
    lineage = json.loads((tmp_path / "b/lineage.json").read_bytes())
    assert lineage["made"] == "imported" and lineage["from"]["folder"] == "a"
    assert lineage["from"]["files"] in (tmp_path / "b/README.md").read_text()
    (tmp_path / "a/README.md").write_text("# Theirs\n\nlicence: theirs\n")
    bring(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c/README.md").read_text() == "# Theirs\n\nlicence: theirs\n"
    bring(tmp_path / "b", tmp_path / "d")
    assert json.loads((tmp_path / "d/lineage.json").read_bytes())["from"]["lineage"] == lineage
    assert torch.allclose(load_folder(tmp_path / "d")[0].logits(torch.arange(9)[None]),  # type: ignore[operator]
                          theirs(torch.arange(9)[None]).logits, atol=1e-5)  # type: ignore[operator]  # fmt: skip
    weights = sorted((tmp_path / "b").glob("model-*"))[0]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DamagedError, match=rf"{weights.name}: content differs from its digest"):
        bring(tmp_path / "b", tmp_path / "e")


def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source(TABLES["llama"], tmp_path / "a")
    path = tmp_path / "a/model.safetensors"
    whole = load_file(path)
    save_file({**whole, "model.norm.weight": torch.full([32], torch.nan)}, path)
    assert main(["import", str(tmp_path / "a"), "--to", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pretrain: ") and error.count("\n") == 1
    assert "a/model.safetensors: tensor model.norm.weight holds NaN or infinity" in error
    save_file(whole, path)
    train(TEXTS, 280, reserved=4).save(tmp_path / "a")
    with pytest.raises(UserError, match=r"a: the tokenizer has 280 ids; expected at most vocab_size = 97"):
        bring(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="that is the folder itself"):
        (tmp_path / "a/tokenizer.json").unlink()
        bring(tmp_path / "a", tmp_path / "a")
    assert main(["import", str(tmp_path / "a"), "--prove"]) == 2 and "--to DIR" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert main(["import", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "LlamaForCausalLM"


def test_a_tied_head_that_the_file_holds_must_be_the_embedding(tmp_path: Path) -> None:
    source(TABLES["llama, tied"], tmp_path / "a")
    path = tmp_path / "a/model.safetensors"
    whole = load_file(path)
    embed = whole["model.embed_tokens.weight"]
    save_file({**whole, "lm_head.weight": embed.clone()}, path)
    bring(tmp_path / "a", tmp_path / "b")
    assert "lm_head.weight" not in tensors(tmp_path / "b")
    save_file({**whole, "lm_head.weight": embed + 1}, path)
    with pytest.raises(UserError, match=r"tensor lm_head\.weight differs from model\.embed_tokens\.weight, to which"):
        bring(tmp_path / "a", tmp_path / "c")


def test_logits_are_the_published_ones(tmp_path: Path) -> None:
    theirs = source(TABLES["qwen3"], tmp_path / "a")
    bring(tmp_path / "a", tmp_path / "b")
    tokens = torch.arange(40).view(2, 20)
    ours = load_folder(tmp_path / "b")[0].logits(tokens)  # type: ignore[operator]
    assert apart(ours, theirs(tokens).logits) <= 1e-5  # type: ignore[operator]
