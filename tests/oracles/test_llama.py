"""Oracle: our Llama against transformers' LlamaForCausalLM, weights and logits and gradients, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.base.extension import find
from pretrain.model.folder import load_folder, make, read_config, write_folder
from pretrain.model.layers.rope import RopeScaling
from pretrain.model.weights import expand, parameters

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")

MUTANTS = [
    ("src/pretrain/model/layers/rope.py", "torch.cat([-other, one], -1)", "torch.cat([other, -one], -1)"),
    ("src/pretrain/model/layers/rope.py", "frequencies / self.factor", "frequencies"),
    ("src/pretrain/model/layers/feed_forward.py", "silu(self.gate(x)) * self.up(x)", "silu(self.up(x)) * self.gate(x)"),
    ("src/pretrain/model/families/llama.py", "self.mlp(self.mlp_norm(x))", "self.mlp(x)"),
    ("src/pretrain/model/families/llama.py", 'file + "self_attn.k_proj.weight"', 'file + "self_attn.v_proj.weight"'),
]

llama = find("model.families", "llama")
SMALL = llama.Config(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
)
STRETCHED = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
CONFIGS = {
    "plain": SMALL,
    "grouped": dataclasses.replace(SMALL, num_key_value_heads=2),
    "one key": dataclasses.replace(SMALL, num_key_value_heads=1, rope_theta=10_000.0),
    "odd head": dataclasses.replace(SMALL, head_dim=12, num_key_value_heads=2),
    "tied": dataclasses.replace(SMALL, tie_word_embeddings=True, rms_norm_eps=1e-6),
    "stretched": dataclasses.replace(SMALL, rope_scaling=STRETCHED, num_key_value_heads=2),
}
TOKENS = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(0))


def redraw(module: torch.nn.Module) -> None:
    """Fresh norms are one and hide errors: every parameter gets numbers of its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.2 if parameter.dim() == 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_gradients_and_bytes_both_ways(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    ours = make(llama, config)
    redraw(ours)
    write_folder(tmp_path / "ours", llama, ours, config, dtype="float32", end=3)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    here, there = ours.logits(TOKENS), theirs(TOKENS).logits
    assert (here - there).abs().max() <= 1e-5 * there.abs().max()
    for logits in (here, there):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
    for weight in expand(llama.weights(config)):
        ours_grad, theirs_grad = ours.get_parameter(weight.name).grad, theirs.get_parameter(weight.file).grad
        assert (ours_grad - theirs_grad).abs().max() <= 1e-5 * theirs_grad.abs().max(), weight.name

    theirs.save_pretrained(tmp_path / "theirs")
    back, _, read = load_folder(tmp_path / "theirs")
    assert dataclasses.replace(read, head_dim=config.head_dim) == config
    assert (back.logits(TOKENS) - there).abs().max() <= 1e-5 * there.abs().max()
    first, second = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def published(layers: int, width: int, inner: int, heads: int) -> int:
    """Parameters by the table, of nothing allocated."""
    config = llama.Config(
        vocab_size=128256, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=8,
    )  # fmt: skip
    return parameters(llama.weights(config), config.axes())


def test_published_counts_to_the_digit() -> None:
    assert published(32, 4096, 14336, 32) == 8_030_261_248
    assert published(80, 8192, 28672, 64) == 70_553_706_496


def test_the_old_words_of_config_json_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32, "intermediate_size": 72,'
        '"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 7.0, "rope_scaling":'
        '{"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,'
        '"original_max_position_embeddings": 16}}'
    )
    _, config = read_config(tmp_path)
    assert config.rope_theta == 7.0 and config.rope_scaling == STRETCHED
