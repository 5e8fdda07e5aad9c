"""Oracle: a released Llama in a second runtime: CTranslate2 converts our folder, and its log-probabilities are ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from folders import write_folder
from pretrain.base.extension import find
from pretrain.base.files import new_folder
from pretrain.model.folder import load_folder, make
from pretrain.model.layers.rope import RopeScaling
from pretrain.tokenizer.bpe import train

ctranslate2 = pytest.importorskip("ctranslate2", reason="the second runtime is not installed")
pytest.importorskip("transformers", reason="its converter needs transformers")

BOUND = 1e-4  # of a log-probability, in float32
TEXTS = ["the quick brown fox jumps over a lazy dog and other words of a text", "another text, of other words"] * 20

llama = find("model.families", "llama")
CONFIG = llama.Config(
    vocab_size=300, hidden_size=64, intermediate_size=144, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rope_theta=10_000.0,
)  # fmt: skip
SCALING = RopeScaling(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=8192)  # the runtime knows no other  # fmt: skip
VARIATIONS = {
    "grouped": CONFIG,
    "tied": replace(CONFIG, tie_word_embeddings=True, num_key_value_heads=4),
    "theta": replace(CONFIG, rope_theta=500_000.0),
    "llama3": replace(CONFIG, rope_scaling=SCALING, rope_theta=500_000.0),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shard_bytes", [10**9, 60_000], ids=["whole", "shards"])
@pytest.mark.parametrize("name", VARIATIONS)
def test_log_probabilities_agree(name: str, shard_bytes: int, tmp_path: Path) -> None:
    config = VARIATIONS[name]
    made = make(llama, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() == 1 else 0.1))
    tokenizer = train(TEXTS, 290, reserved=8)
    with new_folder(tmp_path / "ours") as folder:
        end, most = tokenizer.end, shard_bytes
        write_folder(folder, llama, made, config, dtype="float32", end=end, shard_bytes=most)
        tokenizer.save(folder)
    ctranslate2.converters.TransformersConverter(str(tmp_path / "ours")).convert(str(tmp_path / "theirs"))
    theirs = ctranslate2.Generator(str(tmp_path / "theirs"), device="cpu", compute_type="float32", intra_threads=1)
    ours = load_folder(tmp_path / "ours")[0]
    ids = torch.from_numpy(tokenizer.encode(TEXTS[0])[None].astype(np.int64))
    names = [tokenizer.inner.id_to_token(int(i)) for i in ids[0]]
    there = torch.from_numpy(np.array(theirs.forward_batch([names], return_log_probs=True)))
    here = ours.logits(ids).log_softmax(-1)  # type: ignore[operator]
    assert float((here - there).abs().max().detach()) <= BOUND
    (scored,) = theirs.score_batch([names])
    expected = here[0, :-1].gather(1, ids[0, 1:, None])[:, 0].detach().numpy()
    assert np.allclose(scored.log_probs, expected, atol=BOUND)
