"""Oracle: latent attention against transformers' DeepseekV3Attention, forward, backward and through the cache."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.attention.mask import Causal, Documents
from pretrain.generate.cache import KeyValueCache
from pretrain.model.decoder import Where, follow
from pretrain.model.layers.latent import LatentAttention
from pretrain.model.layers.rope import RopeScaling, Rotary, temperature

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")

MUTANTS = [
    ("src/pretrain/model/layers/latent.py", "self.q_norm(self.q_down(x))", "self.q_down(x)"),
    ("src/pretrain/model/layers/latent.py", "latent = self.kv_norm(latent)", "pass"),
    ("src/pretrain/model/layers/latent.py", ".split([self.plain, self.value], -1)",
     ".flip(-1).split([self.plain, self.value], -1)"),
    ("src/pretrain/model/layers/latent.py", "interleaved=self.interleaved", "interleaved=False"),
    ("src/pretrain/model/layers/latent.py", "k, v, mask=where.mask, scale=self.scale, exchange",
     "k, v, mask=where.mask, exchange"),
    ("src/pretrain/model/layers/latent.py", "latent, mask=where.mask, scale=self.scale)", "latent, mask=where.mask)"),
    ("src/pretrain/model/layers/latent.py", "[latent, k_turned], -1)", "[latent, 0 * k_turned], -1)"),
    ("src/pretrain/model/layers/latent.py", "self._heads(q, self.plain + self.turned).split([self.plain",
     "self._heads(q, self.plain + self.turned).roll(1, -1).split([self.plain"),
]  # fmt: skip
WIDTH, HEADS, LENGTH = 32, 4, 21
NAMES = {
    "q": "q_proj", "q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj", "kv_down": "kv_a_proj_with_mqa",
    "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "out": "o_proj",
}  # fmt: skip
YARN = {"factor": 4.0, "original_max_position_embeddings": 8, "mscale": 0.8, "mscale_all_dim": 0.5}
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "straight queries": {"q_lora_rank": None},
    "halves": {"rope_interleave": False},
    "wide values": {"v_head_dim": 20},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, **YARN}},
}


def pair(**more: Any) -> tuple[LatentAttention, Rotary, Any, Any]:
    """Ours and its rotary table, theirs and its; every parameter redrawn."""
    said = {
        "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": 24,
        "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 8,
        "max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, **more,
    }  # fmt: skip
    module = transformers.models.deepseek_v3.modeling_deepseek_v3
    config = module.DeepseekV3Config(**said)
    config._attn_implementation = "eager"
    theirs, theirs_turns = module.DeepseekV3Attention(config, 0), module.DeepseekV3RotaryEmbedding(config)
    yarn = RopeScaling(rope_type="yarn", **YARN) if "rope_parameters" in more else None
    scale = None if yarn is None else 16**-0.5 * temperature(4.0, 0.5) ** 2
    ours = LatentAttention(
        WIDTH, HEADS, q_rank=said["q_lora_rank"], kv_rank=12, plain=10, turned=6, value=said["v_head_dim"],
        interleaved=more.get("rope_interleave", True), scale=scale,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for name, parameter in ours.named_parameters():
            parameter.copy_(theirs.get_parameter(f"{NAMES[name.removesuffix('.weight')]}.weight"))
    return ours, Rotary(6, 1e4, yarn, 64), theirs, theirs_turns


def given() -> Tensor:
    return torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def where(rotary: Rotary, tokens: Tensor, cache: KeyValueCache | None = None) -> Where:
    turn = rotary(follow(tokens, 0 if cache is None else cache.length), torch.float32)
    return Where(tokens, Causal(), (turn,), cache)


@pytest.mark.parametrize("name", VARIATIONS)
def test_equals_the_published(name: str) -> None:
    ours, rotary, theirs, turns = pair(**VARIATIONS[name])
    x = given()
    seen = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]
    there, _ = theirs(x, turns(x, torch.arange(LENGTH)[None]), seen)
    here = ours(x, where(rotary, x[..., 0]))
    assert (here - there).abs().max() <= 1e-5 * there.abs().max()
    here.square().sum().backward(), there.square().sum().backward()
    for part, parameter in ours.named_parameters():
        wanted = theirs.get_parameter(f"{NAMES[part.removesuffix('.weight')]}.weight").grad
        assert (parameter.grad - wanted).abs().max() <= 1e-5 * wanted.abs().max(), part


@torch.no_grad()
def test_the_cache_keeps_the_latent_and_changes_nothing() -> None:
    ours, rotary, _, _ = pair()
    x, cache, parts = given(), KeyValueCache(), []
    for part in x.split([7, 1, 5, 1, LENGTH - 14], 1):
        parts.append(ours(part, where(rotary, part[..., 0], cache)))
        cache.length += part.shape[1]
    whole = ours(x, where(rotary, x[..., 0]))
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5 * whole.abs().max()
    ((latent, key),) = cache._held.values()
    assert latent.shape == (2, 1, LENGTH, 12) and key.shape == (2, 1, LENGTH, 6)


@torch.no_grad()
def test_documents_stay_apart() -> None:
    ours, rotary, _, _ = pair()
    x = given()[:1]
    ids = torch.tensor([[0] * 9 + [1] * (LENGTH - 9)])
    positions = torch.cat([torch.arange(9), torch.arange(LENGTH - 9)])[None]
    both = ours(x, Where(ids, Documents(ids), (rotary(positions, torch.float32),)))
    for part, place in zip(x.split([9, LENGTH - 9], 1), (slice(9), slice(9, None)), strict=True):
        alone = ours(part, where(rotary, part[..., 0]))
        assert (both[:, place] - alone).abs().max() <= 1e-5 * alone.abs().max()
