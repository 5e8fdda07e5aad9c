"""Oracle: a mixture made of a dense model is that model, here and in transformers, until its experts learn apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from folders import write_folder
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.cli.main import main
from pretrain.model.folder import load_folder, make
from pretrain.model.upcycle import upcycle

MUTANTS = [
    ("src/pretrain/model/upcycle.py", ".copy_(held(dense, name))", ".copy_(held(dense, name) * 2)"),
    ("src/pretrain/model/layers/experts.py", "(weights.sum(-1, keepdim=True) + 1e-20)", "1"),
    ("src/pretrain/model/upcycle.py", "    if left:", "    if not left:"),
]
SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
TOKENS = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))


def dense(name: str, folder: Path, **more: object) -> torch.Tensor:
    """Logits of a drawn model whose folder is written."""
    family = find("model.families", name)
    config = family.Config(**SMALL, **more)
    model, generator = make(family, config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    write_folder(folder, family, model, config, dtype="float32", end=3)
    return model.logits(TOKENS)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "use", "said"),
    [
        ("llama", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        ("qwen3", "qwen3_moe", {"num_experts": 6, "num_experts_per_tok": 3, "norm_topk_prob": True}),
    ],
)
def test_the_logits_are_the_dense_models(name: str, use: str, said: dict[str, int], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
    logits = dense(name, tmp_path / "dense", tie_word_embeddings=name == "qwen3")
    model, family, config = upcycle(tmp_path / "dense", use, 0, **said)
    bound = 1e-5 * float(logits.detach().abs().max())
    assert torch.allclose(model.logits(TOKENS), logits, rtol=0, atol=bound)  # type: ignore[operator]
    router = model.get_parameter("blocks.1.mlp.router.weight")
    assert 0.01 < router.std() < 0.03 and not torch.equal(router, model.get_parameter("blocks.0.mlp.router.weight"))

    write_folder(tmp_path / "sparse", family, model, config, dtype="float32", end=3)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sparse")
    assert type(theirs).__name__ == family.ARCHITECTURE
    assert torch.allclose(theirs(TOKENS).logits, logits, rtol=0, atol=bound)


def test_families_that_differ_in_more_are_refused(tmp_path: Path) -> None:
    dense("qwen2", tmp_path)
    with pytest.raises(UserError, match=r"mixtral has no place for blocks\.0\.attention\.k\.bias"):
        upcycle(tmp_path, "mixtral", 0)
    with pytest.raises(UserError, match=r"qwen3_moe has blocks\.0\.attention\.q_norm\.weight"):
        upcycle(tmp_path, "qwen3_moe", 0)
    with pytest.raises(UserError, match="num_expert = 4 is not known to the family"):
        upcycle(tmp_path, "mixtral", 0, num_expert=4)


def test_import_writes_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = dense("llama", tmp_path / "dense")
    command = ["import", str(tmp_path / "dense"), "--to", str(tmp_path / "sparse"), "--upcycle", "mixtral"]
    assert main([*command, "num_local_experts=4", "num_experts_per_tok=2"]) == 0
    assert capsys.readouterr().out.startswith("MixtralForCausalLM, ")
    model, _, config = load_folder(tmp_path / "sparse")
    assert (config.num_local_experts, config.num_experts_per_tok) == (4, 2)
    assert torch.allclose(model.logits(TOKENS), logits, rtol=0, atol=1e-5 * float(logits.detach().abs().max()))
    lineage = json.loads((tmp_path / "sparse" / "lineage.json").read_bytes())
    assert lineage["made"] == "upcycled to mixtral" and lineage["from"]
    for wrong, told in (
        (["num_local_expert=4"], "nearest: num_local_experts"),
        (["num_local_experts"], "num_local_experts; expected KEY=VALUE"),
    ):
        assert main([*command, *wrong]) == 2
        assert told in capsys.readouterr().err
    assert main(["import", str(tmp_path / "dense"), "--upcycle", "mixtral"]) == 2
    assert "--to DIR" in capsys.readouterr().err
