"""Oracle: DeepSeek-V3 against transformers' DeepseekV3ForCausalLM, its module that looks ahead against MtpModel."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from folders import write_folder
from oracles.family import BOUND, apart, both_ways, count, published, tensors
from pretrain.base.errors import UserError
from pretrain.base.extension import find
from pretrain.model.ahead import add_ahead
from pretrain.model.config import read_config
from pretrain.model.count import active_parameters
from pretrain.model.folder import load_folder, make
from pretrain.model.weights import expand

MUTANTS = [
    ("src/pretrain/model/families/deepseek_v3.py", "temperature(scaling.factor, scaling.mscale_all_dim) ** 2", "1"),
    ("src/pretrain/model/families/deepseek_v3.py", 'score="sigmoid"', 'score="softmax"'),
    ("src/pretrain/model/families/deepseek_v3.py", "renormalise=c.norm_topk_prob", "renormalise=True"),
    ("src/pretrain/model/families/deepseek_v3.py", "scale=c.routed_scaling_factor", "scale=1.0"),
    ("src/pretrain/model/families/deepseek_v3.py", "groups=c.n_group", "groups=1"),
    ("src/pretrain/model/families/deepseek_v3.py", "i >= c.first_k_dense_replace", "i > c.first_k_dense_replace"),
    ("src/pretrain/model/families/deepseek_v3.py", "interleaved=c.rope_interleave", "interleaved=True"),
    ("src/pretrain/model/families/deepseek_v3.py", "c.n_routed_experts), shared)", "c.n_routed_experts), None)"),
    ("src/pretrain/model/families/deepseek_v3.py", 'file + "hnorm.weight"', 'file + "enorm.weight"'),
    ("src/pretrain/model/ahead.py", "[self.norm_token(later), self.norm_hidden(x)]",
     "[self.norm_hidden(x), self.norm_token(later)]"),
    ("src/pretrain/model/ahead.py", "embedded[:, k:]", "embedded[:, : embedded.shape[1] - k]"),
]  # fmt: skip
deepseek = find("model.families", "deepseek_v3")
SMALL: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48,
    "moe_intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
    "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 8,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2,
    "first_k_dense_replace": 1, "num_nextn_predict_layers": 0, "max_position_embeddings": 64,
    "routed_scaling_factor": 2.5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
    "beta_slow": 1.0,
}  # fmt: skip
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "straight queries": {"q_lora_rank": None},
    "one group, weights as they are": {"n_group": 1, "topk_group": 1, "norm_topk_prob": False},
    "two shared, all layers": {"n_shared_experts": 2, "first_k_dense_replace": 0, "routed_scaling_factor": 1.0},
    "dense": {"first_k_dense_replace": 3, "rms_norm_eps": 1e-4},
    "halves, tied": {"rope_interleave": False, "tie_word_embeddings": True},
    "yarn": {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    "yarn, two weights": {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2}},
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_both_ways(name: str, tmp_path: Path) -> None:
    both_ways({**SMALL, **VARIATIONS[name]}, tmp_path)


def with_module(folder: Path) -> None:
    """A published folder of one module that looks ahead, as DeepSeek writes it: one more layer, which has copies of
    embedding and head; everything in it drawn at random."""
    theirs = published({**SMALL, "num_nextn_predict_layers": 1})
    theirs.save_pretrained(folder)
    whole, generator = tensors(folder), torch.Generator().manual_seed(4)
    config = replace(read_config(folder)[1], num_nextn_predict_layers=1)
    rows = [row for row in deepseek.weights(config) if row.name.startswith("ahead.")]
    for row in rows:
        for name, place in row.pieces(config.axes()):
            shape = torch.empty(row.shape(config.axes()))[place].shape
            whole[name] = torch.randn(shape, generator=generator) * (0.2 if len(shape) == 1 else 0.3)
    whole["model.layers.3.embed_tokens.weight"] = whole["model.embed_tokens.weight"].clone()
    whole["model.layers.3.shared_head.head.weight"] = whole["lm_head.weight"].clone()
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_module_that_looks_ahead_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' MtpModel of the extra layer, logits and gradients; and what we write of it is what we read."""
    from transformers.cache_utils import MtpCache
    from transformers.modeling_layers import MtpModel

    with_module(tmp_path / "theirs")
    kind = type(published(SMALL))
    monkeypatch.setattr(kind, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.3.*"])  # it looks at V3's own, 61
    theirs = kind.from_pretrained(tmp_path / "theirs", attn_implementation="eager")
    module = MtpModel.from_pretrained(theirs)
    tokens = torch.randint(5, 97, (2, 30), generator=torch.Generator().manual_seed(0))
    hidden = theirs.model(tokens).last_hidden_state[:, :-1]
    cache = MtpCache(config=theirs.config.get_mtp_config())
    there = theirs.lm_head(module.forward_layer(0, hidden, torch.arange(1, 30)[None], cache, input_ids=tokens[:, 1:]))

    ours, family, config = load_folder(tmp_path / "theirs")
    here = ours.head(ours.eval()(tokens, ahead=True).ahead[0])[:, :-1]  # type: ignore[operator]
    assert apart(here, there) <= BOUND
    here.square().mean().backward(), there.square().mean().backward()
    layer, embed = module.layers[0], theirs.get_input_embeddings()
    pairs = {"ahead.0.projection": layer.eh_proj, "ahead.0.norm_token": layer.enorm, "ahead.0.norm": layer.post_norm,
             "ahead.0.block.attention.kv_up": layer.mtp_block.self_attn.kv_b_proj, "embed": embed}  # fmt: skip
    for name, one in pairs.items():
        assert apart(ours.get_parameter(f"{name}.weight").grad, one.weight.grad) <= BOUND, name

    write_folder(tmp_path / "ours", family, ours, config, dtype="float32", end=3)
    one, two = (tensors(tmp_path / side) for side in ("theirs", "ours"))
    copies = {"model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight"}
    assert one.keys() - two.keys() == copies and not two.keys() - one.keys()
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_an_objective_teaches_the_module_that_is_there(tmp_path: Path) -> None:
    """No second one is made beside it, and none is left untaught."""
    with_module(tmp_path)
    model, family, config = load_folder(tmp_path)
    rows = family.weights(config)
    assert add_ahead(model, rows, 1) == [] and len(model.ahead) == 1  # type: ignore[arg-type]
    assert {row.name.split(".")[1] for row in add_ahead(model, rows, 2)} == {"1"}
    with pytest.raises(UserError, match="1 modules that look ahead, and the objective would leave 1 untaught"):
        add_ahead(make(family, config), rows, 0)


PUBLISHED: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
    "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
    "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_theta": 10000, "routed_scaling_factor": 2.5,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                     "original_max_position_embeddings": 4096, "type": "yarn"},
    "scoring_func": "sigmoid", "seq_aux": True, "tie_word_embeddings": False, "topk_group": 4,
    "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True,
    "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip


def test_published_counts_to_the_digit(tmp_path: Path) -> None:
    """671B, of which a token meets 36.6B beside its embedding, as DeepSeek's README_WEIGHTS.md says. The file's numbers
    are what is learned and, in each of 58 layers, 256 biases of balancing; the module adds a layer of experts, its
    projection and norms, its embedding and head being copies."""
    module = count(PUBLISHED, tmp_path)
    main = count({**PUBLISHED, "num_nextn_predict_layers": 0}, tmp_path)
    _, config = read_config(tmp_path)
    rows = deepseek.weights(config)
    biases = sum(config.n_routed_experts for row in expand(rows) if row.buffer)
    assert (main, biases, main + biases) == (671_026_404_352, 58 * 256, 671_026_419_200)
    assert module - main == 11_610_067_968
    assert active_parameters(rows, config.axes()) - 129280 * 7168 == 36_625_603_584


def test_what_is_not_its_arithmetic_is_refused(tmp_path: Path) -> None:
    for key, value in {"scoring_func": "softmax", "topk_method": "greedy", "attention_bias": True}.items():
        (tmp_path / "config.json").write_text(json.dumps({**PUBLISHED, key: value}))
        with pytest.raises(UserError, match=f"{key} = .* is not supported"):
            read_config(tmp_path)
    with pytest.raises(ValueError, match="num_experts_per_tok 9 of 8 experts"):
        deepseek.Config(1, 8, 8, 8, 1, 1, 8, n_routed_experts=16, n_group=4, topk_group=2, num_experts_per_tok=9)


def test_what_transformers_saves_without_its_modules_is_read_so(tmp_path: Path) -> None:
    theirs = published({**SMALL, "num_nextn_predict_layers": 1})
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_bytes())["num_nextn_predict_layers"] == 1
    ours, _, config = load_folder(tmp_path)
    tokens = torch.arange(12)[None] % 90
    assert config.num_nextn_predict_layers == 0
    bound = BOUND * float(theirs(tokens).logits.detach().abs().max())
    assert torch.allclose(ours.logits(tokens), theirs(tokens).logits, rtol=0, atol=bound)  # type: ignore[operator]
